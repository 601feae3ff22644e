"""What a comparison calls: nothing where only the training noise differs, and most of what is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.client import ClientState, Outcome
from fedmem.studies.compare import compare
from fedmem.studies.comparison import Comparison
from fedmem.studies.quantities import Series
from tests.tiny import tiny

pytestmark = [pytest.mark.statistical, pytest.mark.nightly]

POOL, SEEDS, REPETITIONS = 36, 8, 100


@dataclass(frozen=True, kw_only=True)
class Reordered:
    """The same descent, whose batches come from a stream of their own."""

    lr: float = 0.3
    epochs: int = 3
    batch_size: int = 8

    @property
    def _inner(self) -> Sgd:
        return Sgd(lr=self.lr, epochs=self.epochs, batch_size=self.batch_size)

    def num_steps(self, num_examples: int) -> int:
        return self._inner.num_steps(num_examples)

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray:
        return self._inner.batches(num_examples, np.random.default_rng(rng.integers(2**63)))

    def init(self, before: Params, offer: Params, memory: Params) -> ClientState:
        return self._inner.init(before, offer, memory)

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        return self._inner.step(state, gradient)

    def final(self, state: ClientState, before: Params) -> Outcome:
        return self._inner.final(state, before)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Federated averaging against itself with other training noise, on real banks: each seed is a pair."""
    scenario = tiny(
        runs=8,
        rounds=3,
        bootstrap=20,
        injections=[{"kind": "random_pattern", "per_client": 4}, {"kind": "mislabelled", "per_client": 4}],
        client={"kind": "sgd", "lr": 0.3, "epochs": 3, "batch_size": 8},
        observe={"levels": ["local", "global"]},
        probes=[{"kind": "utility"}],
        estimators=[{"kind": "memorisation"}, {"kind": "exposure"}],
    )
    made = compare(
        scenario,
        vary={"client.kind": ["sgd", "tests.statistical.test_comparing:Reordered"]},
        seeds=range(POOL),
        out=tmp_path_factory.mktemp("pool"),
    )
    assert not made.failures
    return made.comparison


def drawn(
    pool: Comparison, rng: np.random.Generator, shift: Callable[[Series], Any] = lambda series: 0.0
) -> Comparison:
    """Some seeds of the pool, the two settings, which are alike, swapped in half of them; then the second shifted."""
    seeds = rng.choice(POOL, SEEDS, replace=False)
    swapped = rng.random(SEEDS) < 0.5

    def of(series: Series) -> Series:
        def dealt(of_all: FloatArray) -> FloatArray:
            first, second = of_all[:, seeds]
            return np.array([np.where(swapped, second, first), np.where(swapped, first, second)])

        values = dealt(series.values)
        values[1] += shift(series)
        others: dict[str, Any] = {name: dealt(getattr(series, name)) for name in ("null", "n", "paired", "fpr")}
        return replace(series, values=values, **others)

    return replace(pool, seeds=tuple(seeds.tolist()), series=tuple(map(of, pool.series)))


def test_noise_alone_is_rarely_called(pool: Comparison) -> None:
    """At most 10 of 100 tables call any difference of a measure; without the adjustment far more do."""
    rng = np.random.default_rng(0)
    tables = [drawn(pool, rng).rows for _ in range(REPETITIONS)]
    metrics = {row.quantity.metric for row in tables[0]}
    called = max(
        sum(any(row.verdict in ("higher", "lower") for row in rows if row.quantity.metric == metric) for rows in tables)
        for metric in metrics
    )
    unadjusted = sum(any(row.contrast is not None and row.contrast.p < 0.05 for row in rows) for rows in tables)
    assert called <= 10
    assert unadjusted > 20
    assert len([row for row in tables[0] if row.contrast is not None]) >= 8


def test_planted_shift_is_found_in_over_60_comparisons(pool: Comparison) -> None:
    """A shift by two standard errors of a single pair, as its differences scatter over seeds, at the exposure alone."""
    rng = np.random.default_rng(1)

    def shift(series: Series) -> float:
        place = series.quantity.metric, series.quantity.level, series.quantity.parts
        return (
            2 * float((series.values[1] - series.values[0]).std(ddof=1)) if place == ("exposure", "global", ()) else 0.0
        )

    found = sides = 0
    for _ in range(REPETITIONS):
        rows = [row for row in drawn(pool, rng, shift).rows if row.quantity.metric == "exposure"]
        (row,) = [row for row in rows if row.quantity.level == "global" and row.contrast is not None]
        found += row.verdict == "higher"
        sides += row.verdict == "lower"
    assert found > 60
    assert not sides
