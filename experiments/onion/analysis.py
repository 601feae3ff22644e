"""From federations with and without an outer layer to the change of the examples that stay."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fedmem.attacks.lira import Lira
from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.estimator import View
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.views import views
from fedmem.estimators.membership import Membership
from fedmem.results.read import Run, read_bank
from fedmem.studies.contrasts import contrast, detectable_difference
from fedmem.studies.experiment import holm_by_family, over_seeds, with_verdict

if TYPE_CHECKING:
    from fedmem.contracts.measurement import Level

NATURAL = "typical"
"""The kind of the natural rows, from which the outer layer is taken."""

BY_MEMORISATION = {"by": "memorisation", "level": "local", "labels": {"statistic": "probability"}}

SELECTIONS: Mapping[str, Mapping[str, object]] = {
    "owner": {**BY_MEMORISATION, "share": 0.2},
    "aggregate": {"by": "vulnerability", "level": "global", "share": 0.2},
    "one_client": {**BY_MEMORISATION, "owners": [0], "count": 20},
}
"""The outer layer of each selection, as values of `derive.remove`. All are natural rows."""

AHEAD: Mapping[str, tuple[str, Level]] = {"owner": ("memorisation", "local"), "aggregate": ("auc", "global")}
"""Selection -> the measure and the level at which its outer layer must be ahead in runs that did not choose it."""

DRAWS = {"owner": 2, "aggregate": 2, "one_client": 1}
"""How many matched random removals each selection is compared with."""

MEASURES = ("memorisation", "auc", "tpr")
CLAIMED = ("memorisation", "tpr")
"""The measures that claims are about."""

LEVELS: tuple[Level, ...] = ("local", "global")
FPR = 0.01
EQUAL = 0.02
"""Memorisation and test accuracy within which two values count as equal."""

CEILING = 0.95
"""From this memorisation on, a single example counts as saturated."""

KEYS = ["selection", "group", "level", "measure", "contrast"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One federation: values of single examples (m,) by measure and level, and the views that attacks read.

    Attributes:
        memory: Level -> (m,) memorisation by probability of each example; NaN where there is none.
        accuracy: The test accuracy of each level.
        removed: The numbers of the examples that no run trains on.
        ties: How many examples have the score at the border of the outer layer; 0 without ties.
        views: Level -> the last models of this level, on all examples.
    """

    memory: Mapping[Level, FloatArray]
    accuracy: Mapping[Level, float]
    removed: IntArray
    ties: int = 0
    views: Mapping[Level, View] = field(default_factory=dict)

    def of(self, measure: str, level: Level, rows: IntArray) -> float:
        """Mean memorisation of these examples, or the success of an attack on them together."""
        if not len(rows):
            return float("nan")
        if measure == "memorisation":
            return float(self.memory[level][rows].mean())
        return attack_success(self.views[level], rows)[measure] if level in self.views else float("nan")


def arm_of(run: Run) -> Arm:
    """The arm of a finished run."""
    table, examples = run.measurements, len(run.audit)
    table = table[(table.scope == "summary") & table.run.isna() & (table.place != "others")]
    memory: dict[Level, FloatArray] = {}
    accuracy: dict[Level, float] = {}
    for level in LEVELS:
        of_level = table[table.level == level]
        is_single = (of_level.metric == "memorisation") & of_level.subject.str.fullmatch(r"\d+")
        rows = of_level[is_single & (of_level.statistic == "probability")]
        memory[level] = np.full(examples, np.nan)
        memory[level][rows.subject.astype(int)] = rows.value
        accuracy[level] = float(of_level[of_level.metric == "test_accuracy"].value.iloc[0])
    removal = run.scenario.get("removed") or {}
    return Arm(
        memory=memory,
        accuracy=accuracy,
        removed=np.array(removal.get("examples", []), dtype=np.int64),
        ties=ties_of(removal.get("reason", "")),
        views=last_views(run),
    )


def ties_of(note: str) -> int:
    """How many examples share the value at the border, from the note on a removal.

    >>> ties_of("removed are the highest 2 of 9; 3 have the value at the border, of which a random part is taken")
    3
    >>> ties_of("removed are the highest 2 of 9")
    0
    """
    match = re.search(r"(\d+) have the value at the border", note)
    return int(match[1]) if match else 0


def last_views(run: Run) -> dict[Level, View]:
    """The owning clients' models and the aggregate at the end, as attacks read them."""
    bank = read_bank(run.path)
    redeals = permute_coins(bank.audit, 1, np.random.default_rng(0))
    summaries = [view for view in views(bank, redeals) if view.round is None and view.place in ("owner", "")]
    return {view.level: view for view in summaries if view.level in LEVELS}


def attack_success(view: View, rows: IntArray) -> dict[str, float]:
    """AUC of LiRA on these examples together, and its true positive rate at `FPR`, with thresholds from these alone."""
    success = {"auc": float("nan"), "tpr": float("nan")}
    kind = np.full(len(view.audit), "rest", dtype="<U5")
    kind[rows] = "these"
    of_rows = replace(view, audit=replace(view.audit, kind=kind))
    for estimate in Membership(attack=Lira()).estimate(of_rows):
        if estimate.kind == "these" and estimate.labels.get("fpr") in (None, FPR):
            success[estimate.metric] = estimate.value
    return success


def of_selection(name: str, kind: Sequence[str], owner: IntArray, arms: Mapping[str, Arm]) -> pd.DataFrame:
    """All values of one selection in one seed, in the columns `KEYS` and `value`.

    Contrasts are differences of means over the same examples: those that stay in all arms (`contrasts`). `naive` is
    the rise since the federation that gave the scores, and contains the regression to the mean.

    Args:
        name: The name of the selection.
        kind: (m,) kinds of the examples.
        owner: (m,) their owning clients.
        arms: The arms `scores`, which gave the scores of the examples, `whole`, `removed` and one or more `matched…`.
    """
    removed = arms["removed"].removed
    controls = [key for key in arms if key.startswith("matched")]
    rows: list[dict[str, object]] = []

    def add(group: str, level: str, measure: str, **values: float) -> None:
        cell = {"selection": name, "group": group, "level": level, "measure": measure}
        rows.extend({**cell, "contrast": contrast_name, "value": value} for contrast_name, value in values.items())

    touched = np.unique(np.concatenate([removed, *(arms[key].removed for key in controls)]))
    for group, members in groups(name, np.asarray(kind), owner, touched, owner[removed]):
        add(group, "", "examples", start=len(members))
        for level in LEVELS:
            for measure in MEASURES:
                of_arm = {key: arms[key].of(measure, level, members) for key in ("whole", "removed", *controls)}
                add(group, level, measure, **contrasts(of_arm))
            before, after = (arms[key].of("memorisation", level, members) for key in ("scores", "removed"))
            add(group, level, "memorisation", naive=after - before)
            add(group, level, "saturated", start=share_saturated(arms["whole"].memory[level][members]))
    for level in LEVELS:
        accuracies = {key: arms[key].accuracy[level] for key in ("whole", "removed", *controls)}
        add("test", level, "test_accuracy", **contrasts(accuracies))
        for measure in MEASURES:
            means = {key: arms[key].of(measure, level, removed) for key in ("scores", "whole", "removed")}
            add("outer", level, measure, scores=means["scores"], start=means["whole"], after=means["removed"])
    overlap = np.mean([len(np.intersect1d(removed, arms[key].removed)) / len(removed) for key in controls])
    add("outer", "", "overlap", start=float(overlap))
    add("outer", "", "ties", start=arms["removed"].ties)
    add("outer", "", "examples", start=len(removed))
    return pd.DataFrame(rows)


def share_saturated(memory: FloatArray) -> float:
    """The share of examples whose memorisation is at its ceiling; NaN without examples."""
    return float((memory >= CEILING).mean()) if len(memory) else float("nan")


def contrasts(of_arm: Mapping[str, float]) -> dict[str, float]:
    """The value of the whole federation, the changes by both removals, and how much more the first one changes.

    >>> changes = contrasts({"whole": 0.25, "removed": 1.0, "matched_0": 0.5, "matched_1": 0.75})
    >>> changes["removed"], changes["matched"], changes["difference"]
    (0.75, 0.375, 0.375)
    """
    matched = float(np.mean([value for key, value in of_arm.items() if key.startswith("matched")]))
    start, removed = of_arm["whole"], of_arm["removed"]
    return {"start": start, "removed": removed - start, "matched": matched - start, "difference": removed - matched}


def groups(
    name: str, kind: np.ndarray, owner: IntArray, touched: IntArray, removing: IntArray
) -> Iterator[tuple[str, IntArray]]:
    """The groups of examples that stay in every arm: natural rows by whose they are, and both other kinds.

    Args:
        name: The name of the selection.
        kind: (m,) kinds of the examples.
        owner: (m,) their owning clients.
        touched: The examples that some arm removes.
        removing: The clients whose outer layer is removed.
    """
    is_inner = kind == NATURAL
    is_inner[touched] = False
    if name == "one_client":
        is_own = np.isin(owner, removing)
        yield "same_client", np.flatnonzero(is_inner & is_own)
        yield "other_clients", np.flatnonzero(is_inner & ~is_own)
        return
    yield "inner", np.flatnonzero(is_inner)
    for other in dict.fromkeys(kind[kind != NATURAL].tolist()):
        yield other, np.flatnonzero(kind == other)


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds, 95 % interval (Student), and the smallest difference that so many seeds find in 4 of 5 cases."""
    rows = []
    for key, group in values.groupby(KEYS, sort=False):
        of_seeds = group.sort_values("seed").value.to_numpy(dtype=np.float64)
        rows.append({**dict(zip(KEYS, key, strict=True)), **over_seeds(of_seeds), "resolves": resolves(of_seeds)})
    return pd.DataFrame(rows)


def resolves(of_seeds: FloatArray) -> float:
    """The smallest difference that so many seeds find with 80 % chance, where single seeds scatter as these do."""
    scatter = contrast(of_seeds, np.zeros(len(of_seeds)))
    return detectable_difference(scatter.sd, scatter.n) if np.isfinite(of_seeds).all() else float("nan")


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim: the value over seeds that is above 0 if it holds, its 95 % interval, the verdict and `p`.

    `holm` is p adjusted for all claims of the same family.
    """
    seeds = sorted(values.seed.unique())
    wide = values.pivot_table(index=KEYS, columns="seed", values="value", dropna=False).reindex(columns=seeds)
    table: dict[tuple[str, ...], FloatArray] = dict(zip(wide.index, wide.to_numpy(dtype=np.float64), strict=True))

    def series(*key: str) -> FloatArray:
        return table.get(key, np.full(len(seeds), np.nan))

    rows: list[dict[str, object]] = []

    def claim(family: str, text: str, selection: str, level: str, difference: FloatArray) -> None:
        cell = {"family": family, "claim": text, "selection": selection, "level": level}
        is_complete = np.isfinite(difference).all()
        p = contrast(difference, np.zeros(len(seeds))).p if is_complete else float("nan")
        rows.append({**cell, **with_verdict(difference), "p": p, "resolves": resolves(difference)})

    for selection in AHEAD:
        for measure in CLAIMED:
            for level in LEVELS:
                rise = series(selection, "inner", level, measure, "difference")
                claim("inner layer", f"{measure} of the inner layer rises more", selection, level, rise)
    for group, text in (("same_client", "the same client"), ("other_clients", "other clients")):
        for level in LEVELS:
            rise = series("one_client", group, level, "memorisation", "difference")
            claim("one client", f"memorisation of {text} rises more", "one_client", level, rise)
    for level in LEVELS:
        rise = series("one_client", "other_clients", level, "memorisation", "removed")
        claim("one client", "memorisation of other clients rises", "one_client", level, rise)
    for selection, (measure, level) in AHEAD.items():
        ahead = [series(selection, group, level, measure, "start") for group in ("outer", "inner")]
        claim("conditions", f"{measure} of the outer layer is higher", selection, level, ahead[0] - ahead[1])
        for place in LEVELS:
            left = np.abs(series(selection, "outer", place, "memorisation", "after"))
            claim("conditions", "less than 0.02 is left of the outer layer", selection, place, EQUAL - left)
    for selection in (*AHEAD, "one_client"):
        for level in LEVELS:
            change = np.abs(series(selection, "test", level, "test_accuracy", "difference"))
            claim("conditions", "test accuracy differs by less than 0.02", selection, level, EQUAL - change)
    tested = pd.DataFrame(rows)
    return tested.assign(holm=holm_by_family(tested, ["family"]))
