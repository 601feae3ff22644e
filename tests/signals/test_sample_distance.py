"""Tests of `fedmem/signals/sample_distance.py`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from fedmem.attacks.nearest_sample import NearestSample
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals
from fedmem.contracts.data import Examples
from fedmem.errors import ScenarioError
from fedmem.estimation.roc import auc
from fedmem.federation import build as federations
from fedmem.modalities.images import Images
from fedmem.modalities.texts import Texts
from fedmem.signals.sample_distance import SampleDistance, nearest, neighbourhood
from tests.banks import coins
from tests.signals.signals_helpers import Bench
from tests.signals.test_log_density import PIXELS
from tests.tiny import tiny


class Gallery(nn.Module):
    """A sampler that returns random images of those that are its weights."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(count, 1, 4, 4))

    def sample(self, count: int, generator: Generator) -> Tensor:
        return self.rows[torch.randint(len(self.rows), (count,), generator=generator)]


def rows_of(images: FloatArray) -> Examples:
    count = len(images)
    return Examples(inputs=images.astype(np.float32), targets=np.zeros(count, np.int64), ids=np.arange(count))


def read(galleries: FloatArray, examples: FloatArray, base: FloatArray, **fields: Any) -> dict[str, FloatArray]:
    """Of models whose samples are random images of `galleries` (T, k, 1, 4, 4)."""
    context: Any = SimpleNamespace(
        transitions=[None] * len(galleries),
        network=Gallery(galleries.shape[1]),
        params=lambda position: {"rows": torch.from_numpy(galleries[position])},
        examples=rows_of(examples),
        stream=lambda purpose: np.random.default_rng(len(purpose)),
        federation=SimpleNamespace(
            modality=Images(), test=rows_of(base), store=rows_of(base), base=[np.arange(len(base))]
        ),
    )
    return dict(SampleDistance(**fields).values(context))


def bank(seed: int, *, memorises: bool) -> tuple[dict[str, FloatArray], BoolArray]:
    """Sixteen runs that return rows that are in, or fresh rows of the same distribution."""
    rng = np.random.default_rng(seed)
    is_in = coins(16, 20, rng)
    examples, base = rng.random((20, 1, 4, 4)), rng.random((80, 1, 4, 4))
    drawn = [np.resize(examples[row], (20, 1, 4, 4)) if memorises else rng.random((20, 1, 4, 4)) for row in is_in]
    return read(np.stack(drawn), examples, base, samples=120), is_in


def auc_of(found: dict[str, FloatArray], is_in: BoolArray, *, calibrated: bool) -> float:
    distances = found["sample_distance"]
    signals = Signals(margin=-distances, is_in=is_in, signals={"sample_distance": distances})
    return auc(NearestSample(calibrated=calibrated).scores(signals), is_in).value


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_memorising_sampler_has_an_auc_of_one(calibrated: bool) -> None:
    found, is_in = bank(0, memorises=True)
    assert auc_of(found, is_in, calibrated=calibrated) == 1
    assert (found["sample_distance"][is_in] < 1e-6).all()
    assert found["eidetic"][is_in].mean() == 1
    assert found["eidetic"][~is_in].mean() == 0


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_fresh_sampler_is_at_chance(calibrated: bool) -> None:
    found = [bank(seed, memorises=False) for seed in range(30)]
    areas = np.array([auc_of(*one, calibrated=calibrated) for one in found])
    assert abs(areas.mean() - 0.5) < 3 * areas.std(ddof=1) / np.sqrt(30) + 0.01
    gains = [
        distance["sample_distance"][is_in].mean() - distance["sample_distance"][~is_in].mean()
        for distance, is_in in found
    ]
    assert abs(np.mean(gains)) < 3 * np.std(gains, ddof=1) / np.sqrt(30)


def test_ratio_is_by_half_the_mean_of_nearest_rows() -> None:
    rng = np.random.default_rng(1)
    galleries, examples, base = rng.random((1, 3, 1, 4, 4)), rng.random((4, 1, 4, 4)), rng.random((70, 1, 4, 4))
    found = read(galleries, examples, base, samples=200, delta=1.7)
    for j, example in enumerate(examples):
        away = [np.sqrt(np.mean(np.square(example - row))) for row in galleries[0]]
        near = sorted(np.sqrt(np.mean(np.square(example - row))) for row in base)[:50]
        assert found["sample_distance"][0, j] == pytest.approx(min(away), rel=1e-5)
        assert found["sample_ratio"][0, j] == pytest.approx(min(away) / (0.5 * np.mean(near)), rel=1e-5)
    np.testing.assert_array_equal(found["eidetic"], found["sample_ratio"] < 1.7)


def test_duplicates_and_empty_sets_are_decided() -> None:
    one = np.full((1, 1, 4, 4), 0.5)
    found = read(one[None], one, np.repeat(one, 60, axis=0), samples=2)
    assert found["sample_distance"].tolist() == [[0.0]]
    assert np.isnan(found["sample_ratio"]).all(), "all neighbours are duplicates"
    assert np.isnan(found["eidetic"]).all()
    assert np.isnan(neighbourhood(one, one[:0], Images())).all()
    assert neighbourhood(one, np.zeros((1, 1, 4, 4)), Images()).tolist() == [0.5], "fewer than 50 rows"
    assert np.isnan(nearest(one[:0], one, Images())).all()


def test_samples_of_diverged_models_are_nan() -> None:
    galleries = np.stack([np.full((1, 1, 4, 4), np.inf), np.zeros((1, 1, 4, 4))])
    found = read(galleries, np.ones((2, 1, 4, 4)), np.zeros((3, 1, 4, 4)), samples=2)
    for values in found.values():
        assert np.isnan(values[0]).all()
        assert not np.isnan(values[1]).any()
    assert np.isnan(nearest(np.array([[0, 1], [0, -1]]), np.array([[0, 1]]), Texts())).all()


def test_equal_models_draw_equal_samples_of_tokens() -> None:
    """One stream for all models: the value of a model does not depend on its place."""
    bench = Bench(**PIXELS)
    first, second = bench.params(0, scale=0.5), bench.params(1, scale=0.5)
    signal = SampleDistance(samples=5)
    both, alone = bench.values(signal, second, first, second), bench.values(signal, second)
    for name, values in alone.items():
        np.testing.assert_array_equal(both[name][[0, 2]], np.concatenate([values, values]))
    assert (both["sample_distance"][0] != both["sample_distance"][1]).any()


def test_classifiers_are_refused() -> None:
    with pytest.raises(ScenarioError, match="sample_distance draws samples of the models, but mlp is no generative"):
        federations.build(tiny(signals=[{"kind": "sample_distance"}]))
