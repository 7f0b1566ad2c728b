"""A Hydra sweeper that searches settings with Optuna (`hydra/sweeper=optuna`).

hydra-optuna-sweeper, the plugin of Hydra's own repository, needs an Optuna older than 3, prunes
nothing and cannot continue an interrupted search. This one keeps its trials in a SQLite file in the
sweep folder.
"""

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

_STUDY = "study.db"
_BEST = "best.json"


class OptunaSweeper(Sweeper):
    """Asks Optuna for settings, trains with them, tells it the mean verification accuracy.

    Args:
        n_trials: in all, those of an earlier start with the same hydra.sweep.dir included.
        direction: maximize or minimize.
        storage: URL of Optuna's database; null for study.db in the sweep folder.
        study_name: of the study there.
        seed: of the sampler (TPE).
        pruning: whether a run ends early whose validation accuracy is below the median of the
            trials before, at the same step.
        startup_trials: that are never ended early.
        params: values to search, in Hydra's notation: interval(0.4, 0.8), choice(a, b),
            range(1, 5), and those with tag(log, interval(1e-4, 1e-1)).
    """

    def __init__(
        self,
        n_trials: int,
        direction: str,
        storage: str | None,
        study_name: str,
        seed: int,
        pruning: bool,
        startup_trials: int,
        params: DictConfig | None,
    ) -> None:
        self.n_trials, self.direction = n_trials, direction
        self.storage, self.study_name, self.seed = storage, study_name, seed
        self.pruning, self.startup_trials = pruning, startup_trials
        self.params = dict(params or {})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        # Once at the end instead of after every trial.
        self.launcher.shows_comparison = False  # type: ignore[attr-defined]

    def sweep(self, arguments: list[str]) -> None:
        """Carry out the trials that are still missing; a mistake ends with one line."""
        from marginface.cli.errors import clear_errors

        with clear_errors():
            self._search(arguments)

    def _search(self, arguments: list[str]) -> None:
        """The same.

        Raises:
            InputError: Optuna is not installed, nothing is searched, or no trial gave a result.
        """
        from marginface.pages.sweep_page import finish_sweep
        from marginface.utils.errors import InputError
        from marginface.utils.optional_packages import require_package

        optuna = require_package("optuna", extra="optuna")
        folder = Path(str(self.config.hydra.sweep.dir)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self.storage = self.storage or f"sqlite:///{folder / _STUDY}"
        space, fixed = self._search_space(arguments)
        study = optuna.create_study(
            study_name=self.study_name, storage=self.storage, direction=self.direction,
            load_if_exists=True,
        )  # fmt: skip
        # Drawn anew after a stop, not the same trials once more.
        study.sampler = optuna.samplers.TPESampler(seed=self.seed + len(study.trials))
        # Those that were under way when an earlier start was stopped; their runs go on. Others in
        # the same storage are those of another sweep.
        waiting = [
            trial
            for trial in study.trials
            if trial.state == optuna.trial.TrialState.RUNNING
            and trial.user_attrs.get("sweep", str(folder)) == str(folder)
        ]
        while waiting or len(study.trials) < self.n_trials:
            if not waiting:
                waiting.append(study.ask(space))
                waiting[0].set_user_attr("sweep", str(folder))
            self._run(study, waiting.pop(0), fixed, folder)
            self._write_results(study, folder)
        finish_sweep(folder)
        if not _complete(study):
            raise InputError(
                f"no trial of {len(study.trials)} gave a result; the output of each is above, and "
                f"in train.log of its folder below {folder}"
            )
        print(f"best trial {study.best_trial.number}: {study.best_value:.4f}, {study.best_params}")

    def _run(self, study: Any, trial: Any, fixed: list[str], folder: Path) -> None:
        """Train with the settings of a trial and tell the study what came out."""
        from optuna.trial import TrialState

        overrides = [*fixed, *(f"{key}={value}" for key, value in trial.params.items())]
        if self.pruning:
            overrides.append(self._pruning(trial))
        try:
            self.launcher.launch([overrides], initial_job_idx=trial.number)
        except SystemExit as end:
            # Our own launcher ends so after a job that failed, and the search goes on; or because
            # it was asked to stop, and then the same command goes on with this trial.
            if end.code != 1 or getattr(self.launcher, "was_stopped", False):
                raise
        value = _accuracy(folder / str(trial.number))
        told = {"skip_if_finished": True}
        if value is None:
            study.tell(trial.number, state=TrialState.FAIL, **told)
            print(f"trial {trial.number} failed or was not verified; see its folder")
        elif study.trials[trial.number].user_attrs.get("pruned"):
            study.tell(trial.number, state=TrialState.PRUNED, **told)
        else:
            study.tell(trial.number, value, **told)

    def _pruning(self, trial: Any) -> str:
        settings = {
            "storage": self.storage,
            "study_name": self.study_name,
            "trial_id": trial._trial_id,
            "startup_trials": self.startup_trials,
        }
        target = "marginface.training.callbacks.pruning.TrialPruning"
        words = ",".join(f"{key}:{_quoted(value)}" for key, value in settings.items())
        return f"++callbacks.pruning={{_target_:{target},{words}}}"

    def _search_space(self, arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
        """Distributions by key, and overrides that are the same for all trials."""
        from marginface.utils.errors import InputError

        given = [f"{key}={value}" for key, value in self.params.items()]
        space: dict[str, Any] = {}
        fixed: dict[str, str] = {}
        # What is typed wins over the configuration.
        for override in OverridesParser.create().parse_overrides([*given, *arguments]):
            key = override.get_key_element()
            space.pop(key, None)
            fixed.pop(key, None)
            if override.is_sweep_override():
                space[key] = _distribution(override)
            else:
                fixed[key] = str(override.input_line)
        if self.n_trials < 1:
            raise InputError(f"hydra.sweeper.n_trials must be at least 1, got {self.n_trials}")
        if not space:
            raise InputError(
                "nothing to search: give hydra.sweeper.params, or for example "
                "'head.k=interval(0.4,0.8)'"
            )
        return space, list(fixed.values())

    def _write_results(self, study: Any, folder: Path) -> None:
        """best.json and importance.json, for the page and for whoever comes back."""
        from optuna.exceptions import OptunaError
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        from marginface.pages.sweep_page import IMPORTANCE
        from marginface.utils.files import write_json

        complete = _complete(study)
        if not complete:
            return
        best = study.best_trial
        found = {"trial": best.number, "value": best.value, "params": best.params}
        write_json(folder / _BEST, found)
        if len(complete) < 4 or len(best.params) < 2 or len({t.value for t in complete}) < 2:
            return  # nothing to tell apart by
        try:
            with warnings.catch_warnings(action="ignore"):  # that few trials tell little
                shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
        except (ValueError, RuntimeError, OptunaError) as error:
            print(f"no importance of the settings yet: {error}")
            return
        write_json(folder / IMPORTANCE, shares)


def _accuracy(run: Path) -> float | None:
    """The mean verification accuracy of a finished run; whatever launcher ran it."""
    from marginface.runs.folder import RunFolder
    from marginface.runs.status import read_status

    folder = RunFolder(run)
    if not folder.config.is_file() or read_status(folder).state != "done":
        return None
    return folder.read_result().get("val/mean/accuracy")


def _complete(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    return [trial for trial in study.trials if trial.state == TrialState.COMPLETE]


def _quoted(value: Any) -> str:
    """A value within an override; in single quotes only they and backslashes before them count."""
    if not isinstance(value, str):
        return json.dumps(value)
    return "'" + value.replace("'", "\\'") + "'"


def _distribution(override: Override) -> Any:
    """Optuna's distribution of a value in Hydra's sweep notation.

    Raises:
        InputError: a notation that is none of a search.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from marginface.utils.errors import InputError

    key, value = override.get_key_element(), override.value()
    if key == "seed":
        raise InputError(
            f"{override.input_line}: a search would choose the luckiest seed; give one seed, and "
            "train with the best settings and several seeds afterwards"
        )
    if isinstance(value, IntervalSweep) and value.start is not None and value.end is not None:
        ends = value.start, value.end
        kind = IntDistribution if all(isinstance(end, int) for end in ends) else FloatDistribution
        return kind(*ends, log="log" in value.tags)
    if isinstance(value, RangeSweep):
        return CategoricalDistribution(list(value.range()))
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution([str(v) for v in override.sweep_string_iterator()])
    raise InputError(
        f"{override.input_line} cannot be searched: write interval(0.4,0.8), choice(a,b), "
        "range(1,5), or values with commas"
    )


@dataclass
class OptunaSweeperConf:
    """Configuration node hydra/sweeper=optuna."""

    _target_: str = "hydra_plugins.marginface_optuna.OptunaSweeper"
    n_trials: int = 20
    direction: str = "maximize"
    storage: str | None = None
    study_name: str = "marginface"
    seed: int = 0
    pruning: bool = True
    startup_trials: int = 4
    params: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="marginface"
)
