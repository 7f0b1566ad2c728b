"""Runs grouped by everything but the seed, and which groups differ."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.table import Table

from marginface.metrics.bootstrap import Estimate
from marginface.metrics.seed_comparison import (
    Cell,
    Difference,
    Effect,
    compare_groups,
    main_effects,
    mean_interval,
)
from marginface.pages.run_data import MEAN_ACCURACY
from marginface.runs.comparison import ComparedRun, differing_settings, settings_without_seed
from marginface.utils.tables import interval_cell, make_table, metric_cell

HEADINGS = ("rank", "group", "seeds", "accuracy", "95 % interval (t)")


class Group(NamedTuple):
    """Runs that differ in nothing but the seed, and have a result."""

    name: str
    levels: tuple[str, ...]  # of the varied settings
    runs: list[ComparedRun]
    accuracy: Estimate


class Groups(NamedTuple):
    """The groups of some runs from the highest accuracy down, and what tells them apart.

    Attributes:
        settings: that vary from group to group.
        groups: from the highest mean accuracy down.
        differences: of every two groups.
        effects: main effects, of a factorial sweep.
        missing: runs without a validation result.
    """

    settings: list[str]
    groups: list[Group]
    differences: list[Difference]
    effects: list[Effect]
    missing: list[ComparedRun]

    @property
    def ranks(self) -> list[int]:
        """1 + how many groups are significantly better; equal ranks cannot be told apart so."""
        better = dict.fromkeys([group.name for group in self.groups], 0)
        for d in self.differences:
            if d.differs:
                better[d.second if d.value > 0 else d.first] += 1
        return [1 + better[group.name] for group in self.groups]

    def verdict(self) -> str:
        """What may be said of the groups, in a sentence or two."""
        if len(self.groups) < 2:
            return "There is one group of settings: nothing to compare."
        tested = [d for d in self.differences if not math.isnan(d.p_value)]
        if not tested:
            return (
                "Each group has one seed: nothing can be said about the groups beyond the pairs' "
                "own bootstrap (run evaluate.py on them, then marginface compare). Run several "
                "seeds, seed=1,2,3."
            )
        differing = [d for d in tested if d.differs]
        if not differing:
            return (
                f"No two groups differ: none of {len(tested)} differences over seeds has an "
                "interval without 0, after Holm's correction. Their order may be chance."
            )
        best = self.groups[0].name
        equal = [
            d.second if d.first == best else d.first
            for d in self.differences
            if best in (d.first, d.second) and not d.differs
        ]
        words = f"{len(differing)} of {len(tested)} pairs of groups differ, Holm-corrected. "
        if equal:
            return words + f"{best} is highest, and not told apart from {', '.join(equal)}."
        return words + f"{best} is better than every other group."

    def rows(self) -> list[tuple[str, ...]]:
        """A row per group, as HEADINGS say."""
        return [
            (
                str(rank),
                group.name,
                str(len(group.runs)),
                metric_cell("accuracy", group.accuracy.value),
                "one seed"
                if math.isnan(group.accuracy.low)
                else interval_cell("accuracy", group.accuracy.low, group.accuracy.high),
            )
            for rank, group in zip(self.ranks, self.groups, strict=True)
        ]

    def table(self) -> Table:
        """The same for the terminal."""
        return make_table(HEADINGS, self.rows(), "groups (mean verification accuracy, percent)")


def group_runs(runs: Sequence[ComparedRun]) -> Groups:
    """Group runs by everything but the seed and compare the groups.

    The number compared is the mean accuracy over the verification sets after the last validation;
    the best one of each run would be chosen on the very pairs it is judged on.
    """
    settings = [key for key in differing_settings(runs) if key != "seed"]
    found: dict[str, list[ComparedRun]] = {}
    missing = []
    for run in runs:
        if MEAN_ACCURACY in run.result:
            kept = settings_without_seed(run.settings)
            found.setdefault(repr(sorted(kept.items())), []).append(run)
        else:
            missing.append(run)
    groups = [_group(of, settings) for of in found.values()]
    groups.sort(key=lambda group: -group.accuracy.value)
    groups = _with_own_names(groups)
    seeds = {g.name: {r.seed: r.result[MEAN_ACCURACY] for r in g.runs} for g in groups}
    cells = [Cell(g.levels, run.seed, run.result[MEAN_ACCURACY]) for g in groups for run in g.runs]
    return Groups(settings, groups, compare_groups(seeds), main_effects(settings, cells), missing)


def _group(runs: list[ComparedRun], settings: Sequence[str]) -> Group:
    levels = tuple(_word(runs[0].settings.get(key, "-")) for key in settings)
    words = [
        level if key == "head.name" else f"{key}={level}"
        for key, level in zip(settings, levels, strict=True)
    ]
    accuracy = mean_interval([run.result[MEAN_ACCURACY] for run in runs])
    return Group(" ".join(words) or "all runs", levels, runs, accuracy)


def _word(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _with_own_names(groups: list[Group]) -> list[Group]:
    """Numbered where what tells groups apart is not among the settings that are shown."""
    names = [group.name for group in groups]
    if len(set(names)) == len(names):
        return groups
    return [g._replace(name=f"{g.name} ({n})") for n, g in enumerate(groups, start=1)]
