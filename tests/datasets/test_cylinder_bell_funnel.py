"""Made time series: the law of events, channels and sensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.datasets.cylinder_bell_funnel import HIGH, LOW, CylinderBellFunnel


def values(**fields: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training series on the scale of the law, their classes and their sensors."""
    data = CylinderBellFunnel(**fields).load(np.random.default_rng(0))
    assert data.natural is not None
    return data.train.inputs * (HIGH - LOW) + LOW, data.train.targets, data.natural


def test_classes_differ_in_when_an_event_is_high() -> None:
    """Means over aligned events need no noise model: cylinders are level, bells rise, funnels fall."""
    loader = CylinderBellFunnel(rows=1, test=1)
    targets = np.repeat([0, 1, 2], 2000)
    events = loader._events(targets, np.random.default_rng(1))[:, 0]
    for label, first, last in ((0, 6, 6), (1, 0, 6), (2, 6, 0)):
        own = events[targets == label]
        ends = np.array([np.flatnonzero(row)[[0, -1]] for row in own if row.any()])
        rows = own[own.any(axis=1)]
        index = np.arange(len(rows))
        assert rows[index, ends[:, 0]].mean() == pytest.approx(first, abs=0.4)
        assert rows[index, ends[:, 1]].mean() == pytest.approx(last, abs=0.4)
    begins = np.array([np.flatnonzero(row)[0] for row in events[targets == 0]])
    lasts = (events[targets == 0] != 0).sum(axis=1) - 1
    assert (begins.min(), begins.max(), lasts.min(), lasts.max()) == (8, 16, 16, 48)


def test_noise_is_standard_normal_and_hardly_anything_is_clipped() -> None:
    found, _, _ = values(rows=4000)
    before = found[:, 0, :8]
    assert before.mean() == pytest.approx(0, abs=0.02)
    assert before.std() == pytest.approx(1, abs=0.02)
    assert np.isin(found, [LOW, HIGH]).mean() < 0.002


def test_sensor_gain_multiplies_events_and_rows_are_dealt_evenly() -> None:
    found, targets, sensor = values(rows=6000, sensors=4, spread=0.5)
    assert np.bincount(sensor).tolist() == [1500] * 4
    heights = [found[(sensor == k) & (targets == 0)][:, 0, 16:24].mean() for k in range(4)]
    gains = np.random.default_rng(0).uniform(0.5, 1.5, size=4)
    np.testing.assert_allclose(heights, 6 * gains, atol=0.25)


def test_channels_have_events_of_their_own_of_one_class() -> None:
    found, targets, _ = values(rows=2000, channels=2, spread=0.0)
    cylinders = found[targets == 0]
    first, second = (cylinders[:, k, 20:50].std(axis=1) for k in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15
    assert cylinders[:, 0].mean() == pytest.approx(cylinders[:, 1].mean(), abs=0.1)
