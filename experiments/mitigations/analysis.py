"""From the banks of a mitigation to its values by round: accuracy, memorisation, most vulnerable examples, attacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from experiments.mitigations.attacks import adapted_auc, transferred_auc
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import View
from fedmem.contracts.evidence import Bank
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.statistics import in_minus_out
from fedmem.estimation.views import views
from fedmem.results.read import Run
from fedmem.studies.experiment import table_over_seeds
from fedmem.studies.matched import Curve, seeds_by_rounds

KEYS = ["data", "arm", "what", "level", "round"]
LEVELS = ("local", "global")
PLACES = (("local", "owner"), ("global", ""))

ACCURACY = "test accuracy"
MEMORY, WORST, WORST_BEFORE = "memorisation", "memorisation of the most vulnerable", "of those without mitigation"
ONE, SERIES, UNADAPTED, GAIN = "LiRA", "LiRA over rounds", "LiRA, not adapted", "gain by adapting"
OF_KIND = {"random_pattern": "of images of noise", "mislabelled": "of wrong labels", "typical": "of ordinary rows"}
"""Kind → what its memorisation is called in tables."""

SHARE = 0.1
"""The share of examples that count as most vulnerable."""

SPLITS = 10
"""Divisions of the runs into two halves."""


def of_arm(run: Run, bank: Bank, undefended: Bank) -> pd.DataFrame:
    """The values of one mitigation and seed after each observed round: `what`, `level`, `round`, `value`.

    - Test accuracy is that of the aggregate, the mean over runs.
    - Memorisation is by the probability of the label, the mean over examples of all kinds or of one.
    - The most vulnerable are chosen by this mitigation, or by the runs without any, and judged in other runs.
    - LiRA is adapted: its shadow runs have the mitigation. Over rounds it reads the mean margin of all observed rounds
      until then, of the models of the same level. `LiRA, not adapted` has shadow runs without any mitigation.
    - The gain by adapting is the AUC of LiRA minus that of LiRA, not adapted.

    Args:
        run: The finished run.
        bank: Its evidence.
        undefended: The evidence of the same seed without mitigation.
    """
    rows = run.measurements
    asked = (rows.scope.astype(str) == "round") & (rows.metric.astype(str) == "test_accuracy")
    tests = rows[asked & (rows.level.astype(str) == "global") & (rows["round"] > 0)]
    accuracy = pd.DataFrame(
        {"what": ACCURACY, "level": "global", "round": tests["round"].astype(int), "value": tests.value.astype(float)}
    )
    before = {(view.level, view.round): view for view in _rounds(undefended)}
    past: dict[str, list[FloatArray]] = {level: [] for level in LEVELS}
    found = []
    for view in _rounds(bank):
        past[view.level].append(view.margin[:, 0])
        over_rounds = np.mean(past[view.level], axis=0)
        values = _of_view(view, before[view.level, view.round].margin[:, 0], over_rounds)
        found += [{"what": what, "level": view.level, "round": view.round, "value": value} for what, value in values]
    return pd.concat([accuracy, pd.DataFrame(found)], ignore_index=True)


def _rounds(bank: Bank) -> Iterator[View]:
    """The views of owners and of the aggregate after each observed round, in the order of rounds."""
    for view in views(bank, permute_coins(bank.audit, 0, np.random.default_rng(0))):
        if view.round and (view.level, view.place) in PLACES:
            yield view


def _of_view(view: View, before: FloatArray, over_rounds: FloatArray) -> Iterator[tuple[str, float]]:
    """The values of one level in one round; `before` and `over_rounds` are margins (R, m)."""
    margin, is_in, kind = view.margin[:, 0], view.audit.is_in, view.audit.kind
    probability, undefended = _probability(margin), _probability(before)
    memory = in_minus_out(probability, is_in)
    yield MEMORY, float(memory.mean())
    for name, words in OF_KIND.items():
        yield f"{MEMORY} {words}", float(memory[kind == name].mean())
    yield WORST, top_memorisation(probability, probability, is_in)
    yield WORST_BEFORE, top_memorisation(probability, undefended, is_in)
    adapted, unadapted = adapted_auc(margin, is_in, kind), transferred_auc(margin, before, is_in, kind)
    yield ONE, adapted
    yield SERIES, adapted_auc(over_rounds, is_in, kind)
    yield UNADAPTED, unadapted
    yield GAIN, adapted - unadapted


def _probability(margin: FloatArray) -> FloatArray:
    """The probability of the label from its log odds."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.exp(-np.logaddexp(0.0, -margin)))


def top_memorisation(judged: FloatArray, chosen: FloatArray, is_in: BoolArray, share: float = SHARE) -> float:
    """The mean memorisation of the examples that are memorised most, which are chosen and judged in different runs.

    The runs are divided into two halves. The examples with the largest in − out in one half are judged by in − out in
    the other half. Both directions and `SPLITS` random divisions are averaged. So noise of the choice does not enter,
    and without memorisation the expectation is 0. Where the choice is noisy, the value is that of the examples that
    seem to be memorised most, and below that of those that are.

    Args:
        judged: (R, m) probabilities by which examples are judged.
        chosen: (R, m) probabilities by which examples are chosen, of runs with the same coins.
        is_in: (R, m) coins.
        share: The share of examples that is chosen, rounded up.
    """
    runs, count = is_in.shape
    number = max(1, round(share * count))
    rng = np.random.default_rng(0)
    values = []
    for _ in range(SPLITS):
        order = rng.permutation(runs)
        halves = order[: runs // 2], order[runs // 2 :]
        for choosing, judging in (halves, halves[::-1]):
            ranked, effect = (
                in_minus_out(part[half], is_in[half]) for part, half in ((chosen, choosing), (judged, judging))
            )
            # an example that a half has on one side only can be neither chosen nor judged
            usable = np.flatnonzero(np.isfinite(ranked) & np.isfinite(effect))
            top = usable[np.argsort(-ranked[usable], kind="stable")[:number]]
            values.append(float(effect[top].mean()) if len(top) else np.nan)
    return float(np.mean(values))


Key = tuple[str, str, str, str]
"""Data set, arm, quantity and level."""


def arrays_of(values: pd.DataFrame) -> dict[Key, FloatArray]:
    """Each quantity of each arm (seeds, rounds); NaN where a seed lacks a value. All have all seeds and rounds."""
    seeds, rounds = (sorted(values[name].unique()) for name in ("seed", "round"))
    found: dict[Key, FloatArray] = {}
    for (data, arm, what, level), rows in values.groupby(KEYS[:4], sort=False):
        found[str(data), str(arm), str(what), str(level)] = seeds_by_rounds(rows, seeds, rounds)
    return found


def curve(arrays: Mapping[Key, FloatArray], data: str, arm: str, what: str, level: str) -> Curve:
    """A quantity of a mitigation by round beside the test accuracy of the aggregate."""
    utility = arrays[data, arm, ACCURACY, "global"]
    return Curve(utility=utility, quantity=arrays.get((data, arm, what, level), np.full_like(utility, np.nan)))


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Accuracy after each round and all quantities after the last: mean over seeds with its interval (Student)."""
    last = values[(values.what == ACCURACY) | (values["round"] == values["round"].max())]
    return table_over_seeds(last, KEYS)
