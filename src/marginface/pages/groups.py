"""Runs grouped by everything but the seed, and which groups differ."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
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
from marginface.runs.comparison import ComparedRun, differing_settings, seeds_of, short
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
        missing: runs without a validation result, and those a sweeper ended before their time.
        repeated: runs of a seed that another run of their group has already; not counted.
    """

    settings: list[str]
    groups: list[Group]
    differences: list[Difference]
    effects: list[Effect]
    missing: list[ComparedRun]
    repeated: list[ComparedRun]

    @property
    def ranks(self) -> list[int]:
        """1 + how many groups are significantly better."""
        better = dict.fromkeys([group.name for group in self.groups], 0)
        for d in self.differences:
            if d.differs:
                better[d.second if d.value > 0 else d.first] += 1
        return [1 + better[group.name] for group in self.groups]

    def verdict(self) -> str:
        """What may be said of the groups, in a few sentences."""
        same = [
            f"{d.first} and {d.second}"
            for d in self.differences
            if d.p_value == 1 and d.low == d.high == 0
        ]
        words = self._verdict()
        if same:
            listed = "; ".join(same[:5]) + (", ..." if len(same) > 5 else "")
            words += (
                f" {listed}: equal in every digit for every seed, so what tells them apart had no "
                "effect in these runs."
            )
        return words

    def _verdict(self) -> str:
        if len(self.groups) < 2:
            return "There is one group of settings: nothing to compare."
        tested = [d for d in self.differences if not math.isnan(d.p_value)]
        single = [group.name for group in self.groups if len(group.runs) == 1]
        if not tested and len(single) == len(self.groups):
            return (
                "Each group has one seed: nothing can be said about the groups beyond the pairs' "
                "own bootstrap (run evaluate.py on them, then marginface compare). Run several "
                "seeds, seed=1,2,3."
            )
        if not tested:
            return (
                "No two groups can be compared: they have too few seeds"
                + (f" ({', '.join(single)}: one)" if single else "")
                + ", or differ by exactly the same for every seed. Run more seeds."
            )
        differing = [d for d in tested if d.differs]
        of = f"{len(tested)} {'difference' if len(tested) == 1 else 'differences'}"
        if not differing:
            return (
                f"No two groups differ: of {of} over seeds, none has an interval without 0 after "
                "Holm's correction. Their order may be chance."
            )
        best = self.groups[0].name
        beaten = {(d.second if d.value > 0 else d.first) for d in differing if _favors(d, best)}
        others = [group.name for group in self.groups[1:] if group.name not in beaten]
        words = f"Of {of}, {len(differing)} remain after Holm's correction. "
        if others:
            return words + f"{best} is highest, and not told apart from {', '.join(others)}."
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
    seeds_of_parts = seeds_of(runs)
    found: dict[str, list[ComparedRun]] = {}
    missing, repeated = [], []
    for run in runs:
        kept = {key: value for key, value in run.settings.items() if key not in seeds_of_parts}
        group = found.setdefault(repr(sorted(kept.items())), [])
        if MEAN_ACCURACY not in run.result or run.pruned:
            missing.append(run)
        elif run.seed in [other.seed for other in group]:
            repeated.append(run)
        else:
            group.append(run)
    groups = [_group(of, settings) for of in found.values() if of]
    groups.sort(key=lambda group: -group.accuracy.value)
    groups = _with_own_names(groups)
    seeds = {g.name: {r.seed: r.result[MEAN_ACCURACY] for r in g.runs} for g in groups}
    cells = [Cell(g.levels, run.seed, run.result[MEAN_ACCURACY]) for g in groups for run in g.runs]
    return Groups(
        settings, groups, compare_groups(seeds), main_effects(settings, cells), missing, repeated
    )


def _favors(difference: Difference, group: str) -> bool:
    """Whether the group is the higher one of the two."""
    return group == (difference.first if difference.value > 0 else difference.second)


def _group(runs: list[ComparedRun], settings: Sequence[str]) -> Group:
    levels = tuple(short(runs[0].settings.get(key, "-")) for key in settings)
    words = [
        level if key == "head.name" else f"{key}={level}"
        for key, level in zip(settings, levels, strict=True)
        if level != "-"  # a parameter that this head does not have
    ]
    # Of few seeds it would go beyond what an accuracy can be.
    ends = np.clip(mean_interval([run.result[MEAN_ACCURACY] for run in runs]), 0, 1)
    accuracy = Estimate(*ends.tolist())
    return Group(" ".join(words) or "all runs", levels, runs, accuracy)


def _with_own_names(groups: list[Group]) -> list[Group]:
    """Numbered where what tells groups apart is not among the settings that are shown."""
    names = [group.name for group in groups]
    if len(set(names)) == len(names):
        return groups
    return [g._replace(name=f"{g.name} ({n})") for n, g in enumerate(groups, start=1)]
