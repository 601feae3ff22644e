"""Estimators against closed forms, with many repetitions: each accepts the truth and rejects a nearby mistake."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from fedmem.attacks.lira import Lira
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.evidence import Bank, Evidence
from fedmem.contracts.measurement import Level
from fedmem.estimation.estimates import estimate
from fedmem.estimation.roc import auc, tpr
from fedmem.estimators.exposure import Exposure, null_mean
from fedmem.estimators.memorisation import Memorisation
from tests.banks import coins, make_audit, make_view, signals
from tests.labelling import labels
from tests.narrowing import present

pytestmark = pytest.mark.statistical


# Memorisation


def nearest_neighbours(
    points: int = 300, runs: int = 2000, classes: int = 4, flipped: int = 30, seed: int = 0
) -> tuple[BoolArray, FloatArray, FloatArray]:
    """1-NN learners on half of the points, in complementary pairs: coins, correctness, and the exact self-influence."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=points)
    place = np.stack([np.cos(2 * np.pi * labels / classes), np.sin(2 * np.pi * labels / classes)], axis=1)
    place += 0.5 * rng.normal(size=(points, 2))
    labels[:flipped] = (labels[:flipped] + 1) % classes
    order = np.argsort(np.linalg.norm(place[:, None] - place[None], axis=2), axis=1)  # each point is its own nearest
    is_in = np.zeros((runs, points), bool)
    for pair in range(runs // 2):
        half = rng.permutation(points)[: points // 2]
        is_in[2 * pair, half] = True
        is_in[2 * pair + 1] = ~is_in[2 * pair]
    agrees = labels[order] == labels[:, None]
    nearest = np.stack([present[order].argmax(1) for present in is_in])
    correct = agrees[np.arange(points), nearest].astype(float)
    # P(the j-th nearest of the n - 1 others is the first present) when m of them are present, hypergeometric.
    others, present = points - 1, points // 2
    first, none_before = np.zeros(others), 1.0
    for j in range(others):
        first[j] = none_before * min(1.0, present / (others - j))
        none_before *= 1 - min(1.0, present / (others - j))
    return is_in, correct, 1 - agrees[:, 1:] @ first


def test_memorisation_of_nearest_neighbours_is_hypergeometric() -> None:
    is_in, correct, exact = nearest_neighbours()
    found = present(Memorisation().estimate(make_view(np.zeros(is_in.shape), is_in, correct=correct))[0].per_example)

    def error(values: FloatArray) -> float:
        return math.sqrt(np.mean((values - exact) ** 2))

    assert error(found) < 0.015
    assert np.corrcoef(found, exact)[0, 1] > 0.999
    assert found[:30].mean() > 0.8 > 0.3 > found[30:].mean()
    assert error(-found) > 0.3  # sign
    assert error((correct * is_in).mean(0) - (correct * ~is_in).mean(0)) > 0.1  # by R, not by R/2
    assert error(correct.mean(0)) > 0.2  # accuracy is no memorisation


def test_newcombe_covers_the_nearest_neighbours() -> None:
    is_in, correct, exact = nearest_neighbours(runs=40)
    e = Memorisation().estimate(make_view(np.zeros(is_in.shape), is_in, correct=correct))[0]
    covered = (present(e.per_example_low) <= exact) & (exact <= present(e.per_example_high))
    assert covered.mean() > 0.93
    # The plain normal interval loses its level where an accuracy is 0 or 1.
    p, q = correct[is_in].mean(), np.array([correct[~c, j].mean() for j, c in enumerate(is_in.T)])
    half = 1.96 * np.sqrt(p * (1 - p) / 20 + q * (1 - q) / 20)
    assert ((abs(present(e.per_example) - exact) <= half).mean()) < 0.93


# Exposure


def uniform_ranks(runs: int, m: int, references: int, rng: np.random.Generator) -> FloatArray:
    """Canaries that were never trained on: a uniform rank among references + 1 places."""
    return rng.integers(1, references + 2, size=(runs, m)).astype(float)


@pytest.mark.parametrize(("references", "mean"), [(10, 1.16), (100, 1.40), (1000, 1.436)])
def test_exposure_of_uniform_ranks_has_the_null_mean(references: int, mean: float) -> None:
    rng = np.random.default_rng(0)
    runs, m = 200, 400
    is_in, rank = coins(runs, m, rng), uniform_ranks(runs, m, references, rng)
    exposure, gain = Exposure().estimate(make_view(rank, is_in, rank=rank, references=references, draws=1))
    bits = np.log2((references + 1) / rank)
    spread = bits.std() / math.sqrt(runs * m / 2)
    assert abs(exposure.value - null_mean(references)) < 3 * spread
    assert exposure.value == pytest.approx(mean, abs=0.03)
    assert abs(gain.value) < 4 * spread
    # Half of the nulls have at least a bit, a quarter at least two: P(exposure >= b) = 2^-b.
    assert np.mean(bits >= 1) == pytest.approx(0.5, abs=0.06)
    assert abs(exposure.value - 0.0) > 50 * spread  # an average near 1.4 bits is the null; zero is not
    if references == 10:  # log2 N instead of log2(N + 1) is off by log2(1.1) and negative for the last rank
        assert abs((exposure.value - math.log2(1.1)) - null_mean(references)) > 10 * spread
        assert null_mean(references) == pytest.approx(np.mean(np.log2(11 / np.arange(1, 12))))


def test_combined_test_keeps_its_level_and_pooling_runs_does_not() -> None:
    rng = np.random.default_rng(1)
    runs, m, references = 4000, 24, 1000
    is_in, rank = coins(runs, m, rng), uniform_ranks(runs, m, references, rng)
    view = make_view(rank, is_in, rank=rank, references=references, draws=1)
    p = np.array([r.value for run, r in Exposure().tests(view) if run is not None])
    assert 0.04 < np.mean(p < 0.05) < 0.06
    assert abs(p.mean() - 0.5) < 0.02
    from scipy.stats import chi2

    bits, count = np.where(is_in, np.log2((references + 1) / rank), 0.0), is_in.sum(1)
    assert np.mean(chi2.sf(2 * bits.sum(1), 2 * count) < 0.05) > 0.3  # bits taken for nats
    assert np.mean(chi2.sf(2 * math.log(2) * bits.sum(1), count) < 0.05) > 0.5  # c degrees of freedom instead of 2c

    # A canary's value acts alike in all runs. One test over pooled runs takes 8 looks at a canary for 8 canaries.
    rejected = 0
    for _ in range(400):
        luck = rng.normal(size=10)
        score = norm.cdf(luck + 0.5 * rng.normal(size=(8, 10)), scale=math.sqrt(1.25))
        pooled = np.log2((references + 1) / (1 + np.floor(score * (references + 1)).clip(max=references)))
        rejected += chi2.sf(2 * math.log(2) * pooled.sum(), 2 * pooled.size) < 0.05
    assert rejected / 400 > 0.12


def test_combined_test_finds_a_weak_effect() -> None:
    rng = np.random.default_rng(2)
    runs, m, references = 400, 80, 1000
    is_in = coins(runs, m, rng)
    rank = np.where(is_in, np.ceil(uniform_ranks(runs, m, references, rng) / 2), 1.0)
    view = make_view(rank, is_in, rank=rank, references=references, draws=1)
    p = np.array([r.value for run, r in Exposure().tests(view) if run is not None])
    assert np.mean(p < 0.05) > 0.95


# Membership


def gaussian(shift: float, runs: int, m: int, seed: int) -> tuple[FloatArray, BoolArray]:
    """Margins with unit variance around means of their own; members are `shift` higher."""
    rng = np.random.default_rng(seed)
    is_in = coins(runs, m, rng)
    return 5 * rng.normal(size=m) + rng.normal(size=(runs, m)) + shift * is_in, is_in


def area(scores: FloatArray, is_in: BoolArray) -> float:
    return auc(scores, is_in).value


def rate(scores: FloatArray, is_in: BoolArray, fpr: float) -> float:
    return tpr(scores, is_in, fpr).value


def test_lira_reaches_the_gaussian_limit_and_mistakes_do_not() -> None:
    margin, is_in = gaussian(1.0, runs=400, m=1000, seed=0)
    best = norm.cdf(1 / math.sqrt(2))
    scores = Lira(variance="pooled").scores(signals(margin, is_in))
    assert area(scores, is_in) == pytest.approx(best, abs=0.005)
    out = np.where(is_in, np.nan, margin)
    two_sided = -norm.logpdf(margin - np.nanmean(out, axis=0))
    assert area(two_sided, is_in) == pytest.approx(0.635, abs=0.01)
    assert rate(scores, is_in, 0.001) == pytest.approx(0.0183, abs=0.003)
    assert rate(two_sided, is_in, 0.001) == pytest.approx(0.0110, abs=0.002)
    assert rate(scores, is_in, 0.1) == pytest.approx(norm.cdf(1 - norm.ppf(0.9)), abs=0.01)
    assert area(margin, is_in) < 0.6  # uncalibrated: the spread between examples hides the shift
    # In nats a member has d²/2 on average and a non-member -d²/2; a variance over raw margins makes them 26 times less.
    assert scores[is_in].mean() == pytest.approx(0.5, abs=0.03)
    assert scores[~is_in].mean() == pytest.approx(-0.5, abs=0.03)
    inside, outside = np.where(is_in, margin, np.nan), out
    raw = norm.logpdf(margin, np.nanmean(inside, 0), np.nanstd(inside)) - norm.logpdf(
        margin, np.nanmean(outside, 0), np.nanstd(outside)
    )
    assert raw[is_in].mean() < 0.1


def test_lira_with_few_runs_prefers_the_pooled_variance() -> None:
    margin, is_in = gaussian(1.5, runs=16, m=2000, seed=1)
    pooled, single = (Lira(variance=v).scores(signals(margin, is_in)) for v in ("pooled", "per_example"))
    assert area(pooled, is_in) > area(single, is_in) + 0.01
    assert rate(pooled, is_in, 0.001) > 2 * rate(single, is_in, 0.001)


@pytest.mark.parametrize(("runs", "plain"), [(8, 0.475), (32, 0.497)])
def test_lira_without_an_effect_has_auc_half(runs: int, plain: float) -> None:
    """Leaving the target out makes the side it came from noisier; without the widening that alone would show."""
    found: dict[str, list[float]] = {"lira": [], "plain": [], "with target": []}
    for seed in range(100):
        margin, is_in = gaussian(0.0, runs=runs, m=200, seed=seed)
        found["lira"].append(area(Lira().scores(signals(margin, is_in)), is_in))
        for name, left in (("plain", 1), ("with target", 0)):
            squares = [
                (margin - ((margin * side).sum(0) - left * margin * side) / (runs / 2 - left * side)) ** 2
                for side in (is_in, ~is_in)
            ]
            found[name].append(area(squares[1] - squares[0], is_in))
    mean = {name: np.mean(areas) for name, areas in found.items()}
    spread = float(np.std(found["lira"])) / 10
    assert abs(mean["lira"] - 0.5) < 3 * spread
    assert mean["plain"] == pytest.approx(plain, abs=3 * spread)
    gap = np.array(found["lira"]) - found["plain"]
    assert gap.mean() > 3 * gap.std() / 10
    assert mean["with target"] > 0.5 + 10 * spread  # the target in its own statistics finds members where none are


# Retention


def retained(share: float, seed: int, runs: int = 32, m: int = 240) -> Bank:
    """One client that always takes part: correctness rises by an effect of each example, at the server by a share."""
    rng = np.random.default_rng(seed)
    audit = make_audit(["random_pattern"] * m, [0] * m, coins(runs, m, rng))
    effect = 0.7 * rng.beta(1, 3, size=m)
    evidence = []
    places: list[tuple[Level, float, int]] = [("local", 1.0, 0), ("global", share, -1)]
    for level, kept, client in places:
        correct = rng.random((runs, m)) < 0.3 + kept * effect * audit.is_in
        evidence.append(
            Evidence(
                round=1,
                level=level,
                set="audit",
                run=np.arange(runs, dtype=np.int32),
                client=np.full(runs, client, np.int32),
                loss=np.zeros((runs, m)),
                margin=np.zeros((runs, m)),
                correct=correct,
            )
        )
    return Bank(audit=audit, evidence=tuple(evidence), references=(), participation=(), seed=seed)


def test_retention_is_recovered_and_shortcuts_are_not() -> None:
    ratios, covered, per_example, selected = [], 0, [], []
    for seed in range(150):
        rows = estimate(retained(0.5, seed), [Memorisation()], 200)
        final = [r for r in rows if r.round is None]
        at_place = [r for r in final if r.reading.subject.isdigit() and not r.reading.labels.without("place")]
        (kept,) = [
            r.reading for r in final if (r.reading.metric, r.reading.labels) == ("retention", labels("of=memorisation"))
        ]
        ratios.append(kept.value)
        covered += kept.low <= 0.5 <= kept.high
        single = {
            level: np.array([r.reading.value for r in at_place if r.level == level]) for level in ("local", "global")
        }
        strong = single["local"] >= 0.25
        selected.append(single["global"][strong].sum() / single["local"][strong].sum())
        some = single["local"] != 0
        per_example.append(np.mean(single["global"][some] / single["local"][some]))
    spread = np.std(ratios) / math.sqrt(len(ratios))
    assert abs(np.mean(ratios) - 0.5) < 3 * spread + 0.01  # a ratio of noisy sums is biased by a little
    assert covered / 150 >= 0.92
    assert np.mean(selected) < 0.42  # examples chosen by their local value
    assert abs(np.mean(per_example) - 0.5) > 0.1  # the mean of ratios
