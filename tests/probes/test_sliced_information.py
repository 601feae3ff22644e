"""Tests of `fedmem/probes/sliced_information.py`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import fedmem
from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.probes.sliced_information import sliced_information
from tests.tiny import tiny


def value(features: FloatArray, targets: IntArray, seed: int = 0) -> tuple[float, float]:
    return sliced_information(features, targets, 200, 5, np.random.default_rng(seed))


def half_space(n: int, width: int) -> tuple[FloatArray, IntArray]:
    """T ~ N(0, I) and Y = sign(T_0)."""
    features = np.random.default_rng(1).standard_normal((n, width))
    return features, (features[:, 0] > 0).astype(np.int64)


def by_quadrature(width: int) -> float:
    """E over c = cos(φ, a) of I(φᵀT; sign(aᵀT)) in bits: φᵀT and aᵀT are normal with correlation c."""
    from scipy.special import ndtr, xlogy

    t = np.linspace(-8, 8, 4001)
    density = np.exp(-np.square(t) / 2) / math.sqrt(2 * math.pi)
    # the density of c on the sphere, by its angle
    angle = (np.arange(60) + 0.5) * math.pi / 120
    weight = np.sin(angle) ** (width - 2)
    p = ndtr(t / np.tan(angle)[:, None])
    entropy = -(xlogy(p, p) + xlogy(1 - p, 1 - p)) / math.log(2)
    given = 1 - (entropy * density).sum(axis=1) * (t[1] - t[0])
    return float((weight * given).sum() / weight.sum())


def test_half_space_has_the_information_by_quadrature() -> None:
    features, targets = half_space(3000, 3)
    found, _ = value(features, targets)
    assert found == pytest.approx(by_quadrature(3), abs=0.02)
    assert found > 0.2
    assert math.isnan(value(np.full((40, 2), np.nan), np.arange(40) % 2)[0])


def test_independent_labels_have_none_after_subtraction() -> None:
    rng = np.random.default_rng(2)
    values = [value(rng.standard_normal((100, 5)), rng.integers(0, 10, 100), seed)[0] for seed in range(20)]
    # without the subtraction it is about 0.9 bits
    assert abs(np.mean(values)) < 0.02


def test_rotation_changes_nothing() -> None:
    features, targets = half_space(2000, 4)
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((4, 4)))[0]
    first, error = value(features, targets)
    second, _ = value(features @ rotation, targets)
    assert abs(first - second) < 3 * error
    assert abs(first - second) < 0.05 * first


def test_ties_carry_no_order_of_rows() -> None:
    """Sorted labels and equal features: a stable sort would find all of the label."""
    targets = np.repeat([0, 1], 200)
    found, _ = value(np.zeros((400, 3)), targets)
    assert abs(found) < 0.02


def test_much_information_in_few_rows_is_too_small() -> None:
    """The docstring has these numbers: shuffled labels have more bias than labels that features determine."""
    for n, expected in ((60, 1.3), (1000, 2.8)):
        targets = np.arange(n) % 10
        assert value(targets[:, None].astype(np.float64), targets)[0] == pytest.approx(expected, abs=0.1)


def test_interval_is_over_rows() -> None:
    small, large = (value(*half_space(n, 3))[1] for n in (200, 1800))
    assert 2 < small / large < 4.5


def test_a_run_has_it_by_place_block_and_set(tmp_path: Path) -> None:
    injections = [{"kind": "mislabelled", "per_client": 8}]
    probe = {"kind": "sliced_information", "directions": 20, "min_rows": 20}
    scenario = tiny(runs=2, rounds=2, injections=injections, probes=[probe], population=0)
    rows = [row for row in fedmem.read(fedmem.run(scenario, out=tmp_path)).rows() if row.run is None]
    sets = {(row.level, row.reading.labels.get("set"), row.reading.labels.get("targets")) for row in rows}
    assert ("local", "base", None) in sets
    assert {("global", "base", None), ("global", "mislabelled", None), ("global", "mislabelled", "true")} <= sets
    assert {row.reading.labels.get("block") for row in rows} == {0, 1, 2}
    final = {
        row.reading.labels.get("block"): row.reading.value
        for row in rows
        if row.round is None and row.level == "global" and row.reading.labels.get("set") == "base"
    }
    assert final[2] > final[0] > 0, "training brings the label to the logits"
