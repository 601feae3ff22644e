"""How often intervals hold the truth and how often p alarms, on banks whose law is known (`tests/calibration.py`).

The table of the nightly test is printed with `pytest -m nightly -s tests/statistical/test_calibration.py`.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest

from fedmem.attacks.lira import Lira
from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.estimation.estimates import estimate
from fedmem.estimators.exposure import Exposure, null_mean
from fedmem.estimators.membership import Membership
from fedmem.estimators.memorisation import Memorisation
from fedmem.studies.contrasts import contrast, mean_of
from tests.calibration import REFERENCES, Coverage, Key, Law, bank, coverage, rows, simulate, trained, unrelated

ESTIMATORS = (Memorisation(), Exposure(), Membership(attack=Lira()), Membership(attack=LossThreshold()))
LAWS = {
    "null, shared weights": Law(),
    "null, own weights": Law(shared=0.1),
    "null, ties": Law(shared=0.5, ties=0.5),
    "planted, shared weights": Law(effect=1.0, own=0.5, tilt=0.2, second=0.5),
    "planted, own weights": Law(effect=1.0, own=0.5, tilt=0.2, shared=0.1, second=0.5),
    "planted, strong": Law(effect=2.5, own=0.5, tilt=0.1, shared=0.6, kept=0.7, second=0.6),
}
REACHED = {("planted, strong", "retention auc lira"): 0.89}
"""Coverage below .93 that docs/measures.md states: near AUC 1."""


def truth_of(law: Law, keys: list[Key]) -> dict[Key, float]:
    """What is known of null banks without looking at estimates."""
    if law.effect:
        return {}
    known = {}
    for key in keys:
        metric, _, _, labels = key
        if metric in ("memorisation", "exposure_gain") or metric.endswith(".difference"):
            known[key] = 0.0
        elif metric == "auc" and labels.get("attack") == "loss_threshold":
            known[key] = 0.5
        elif metric == "exposure":
            known[key] = null_mean(REFERENCES)
    return known


def by_measure(found: dict[Key, Coverage]) -> dict[str, list[Coverage]]:
    """Rows of one measure together: levels, kinds and false positive rates; retention only where most banks have it."""
    groups = defaultdict(list)
    for (metric, _, _, labels), one in found.items():
        if "over" in labels or one.unbounded > 0.2 * one.banks:
            continue
        attack, of = labels.text("attack"), labels.text("of")
        groups[" ".join(filter(None, (metric, of, attack)))].append(one)
    return groups


def covered(told: list[Coverage]) -> float:
    return float(np.mean([one.covered for one in told]))


def width(told: list[Coverage]) -> float:
    return float(np.mean([one.width for one in told]))


@pytest.mark.statistical
@pytest.mark.parametrize("name", ["null, shared weights", "planted, own weights"])
def test_intervals_of_eight_runs_cover_and_are_not_too_wide(name: str) -> None:
    """A bootstrap over runs and examples was 1.3 to 4.6 times as wide as it should have been, or too narrow."""
    law = LAWS[name]
    found = simulate(law, ESTIMATORS, runs=8, examples=24, banks=40)
    groups = by_measure(coverage(found, truth_of(law, list(found))))
    assert {"memorisation", "exposure", "exposure.difference", "auc lira", "auc loss_threshold"} <= set(groups)
    for measure, told in groups.items():
        assert covered(told) >= 0.88, (measure, covered(told))
        if not measure.startswith("retention"):
            assert 0.85 < width(told) < 1.45, (measure, width(told))
    every = [one for measure, told in groups.items() if not measure.startswith("retention") for one in told]
    assert 0.93 <= covered(every) <= 0.985


@pytest.mark.nightly
@pytest.mark.parametrize("runs", [8, 16, 32])
@pytest.mark.parametrize("name", list(LAWS))
def test_every_measure_is_calibrated(name: str, runs: int) -> None:
    law, banks = LAWS[name], 400
    found = simulate(law, ESTIMATORS, runs=runs, examples=24, banks=banks)
    groups = by_measure(coverage(found, truth_of(law, list(found))))
    print(f"\n{name}, {runs} runs, {banks} banks")
    for measure, told in groups.items():
        print(f"  {measure:42s} {covered(told):.3f}  width / (1.96 errors) {width(told):.2f}  rows {len(told)}")
    error = math.sqrt(0.05 * 0.95 / banks)
    for measure, told in groups.items():
        least = REACHED.get((name, measure), 0.93)
        # with ties, intervals of a rate hold it before and after a jump of the threshold
        most = 1.0 if (name, measure[:3]) == ("null, ties", "tpr") else 0.985 if runs == 8 else 0.97
        assert least - 2 * error <= covered(told) <= most + 2 * error, (measure, covered(told))


@pytest.mark.nightly
@pytest.mark.parametrize("runs", [8, 16])
def test_p_of_every_measure_holds_its_level_and_has_power(runs: int) -> None:
    rejected = {}
    for name in ("null, shared weights", "null, ties", "planted, shared weights"):
        alarms = defaultdict(list)
        for seed in range(300):
            for (metric, level, kind, labels), (value, _, _) in rows(
                estimate(bank(LAWS[name], runs=runs, examples=24, seed=seed), ESTIMATORS, 99)
            ).items():
                if metric.endswith(".p") and kind == "random_pattern":
                    alarms[metric, level, labels].append(value <= 0.05)
        rejected[name] = {key: float(np.mean(values)) for key, values in alarms.items()}
        print(f"\n{name}, {runs} runs: p <= .05 in")
        for key, share in rejected[name].items():
            print(f"  {' '.join(map(str, key)):44s} {share:.3f}")
    for name in ("null, shared weights", "null, ties"):
        assert max(rejected[name].values()) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
    local = {key: share for key, share in rejected["planted, shared weights"].items() if key[1] == "local"}
    assert min(local.values()) > 0.8


@pytest.mark.nightly
@pytest.mark.parametrize("null", [True, False])
def test_banks_that_are_really_trained_are_calibrated(null: bool) -> None:
    """With coins that had nothing to do with the models the truth is known, else it is the mean over seeds."""
    banks = [trained(runs=8, seed=seed) for seed in range(150)]
    every = [rows(estimate(unrelated(one, seed) if null else one, ESTIMATORS, 99)) for seed, one in enumerate(banks)]
    keys = list(dict.fromkeys(key for one in every for key in one))
    found = {key: np.array([one.get(key, (math.nan,) * 3) for one in every]) for key in keys}
    known = truth_of(Law(effect=0.0 if null else 1.0), keys)
    # models have memorised something, with whatever coins they are read: exposure is above its null
    known = {key: value for key, value in known.items() if key[0] not in ("exposure", "exposure.difference")}
    groups = by_measure(coverage(found, known))
    print(f"\n{len(banks)} trained banks of 8 runs, {'coins dealt again' if null else 'as they are'}")
    for measure, told in groups.items():
        print(f"  {measure:42s} {covered(told):.3f}  width / (1.96 errors) {width(told):.2f}  rows {len(told)}")
        assert covered(told) >= 0.88, measure
    p = {key: values[:, 0] for key, values in found.items() if key[0].endswith(".p")}
    if null:
        assert max(float(np.mean(values <= 0.05)) for values in p.values()) <= 0.05 + 3.5 * math.sqrt(0.05 * 0.95 / 150)
    else:
        planted = [values for key, values in p.items() if key[0] == "exposure.p" and key[3].get("place") == "owner"]
        assert min(np.mean(values <= 0.05) for values in planted) > 0.5


@pytest.mark.statistical
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_seed_intervals_cover_means_of_skewed_values(seeds: int) -> None:
    """Values of banks are means over many examples: of exponential bits over 12, mildly skewed."""
    rng = np.random.default_rng(seeds)
    one, other = rng.exponential(1.44, (2, 4000, seeds, 12)).mean(3)
    held = [found.low <= 1.44 <= found.high for found in map(mean_of, one)]
    paired = [found.low <= 0 <= found.high for found in map(contrast, one, other)]
    assert 0.93 <= np.mean(held) <= 0.97
    assert 0.93 <= np.mean(paired) <= 0.97
    narrow = [abs(values.mean() - 1.44) <= 1.96 * values.std(ddof=1) / math.sqrt(seeds) for values in one]
    assert np.mean(narrow) < 0.93, "a normal interval would not"
