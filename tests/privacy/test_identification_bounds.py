"""Tests of `fedmem/privacy/identification_bounds.py`."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from fedmem.execution.run import run
from fedmem.privacy import identification_bounds as module
from fedmem.privacy.accounting import Releases
from fedmem.privacy.identification_bounds import largest_share, prior_of
from fedmem.results.read import read_bank
from tests.broken_mechanisms import broken
from tests.tiny import tiny

M, STEPS = 4, 2


def scenario(noise: float = 3.0, **fields: Any) -> Any:
    """Sixteen runs of client 0, which takes two steps with all of its rows in each round."""
    client = {"kind": "dp_sgd", "lr": 1.0, "steps": STEPS, "batch_size": 500, "noise_multiplier": noise}
    return tiny(
        **{
            "runs": 16,
            "rounds": 2,
            "observe": {"every": 1},
            "injections": [{"kind": "random_pattern", "clients": [0], "per_client": M}],
            "coins": {"law": "one_of"},
            "exclusion": "remove",
            "privacy": {"delta": 1e-3},
            "sampler": {"kind": "everyone"},
            "client": client,
            "signals": [{"kind": "weight_features", "projections": 16}],
            "estimators": [{"kind": "shadow_federations"}],
            **fields,
        }
    )


def table_of(folder: Path) -> pd.DataFrame:
    """Rows by level, whose model is read and round (0: the summary); the columns are metrics."""
    table = pd.read_parquet(folder / "measurements.parquet")
    table = table[table.metric.str.startswith("shadow_identified")]
    table = table.assign(round=table["round"].fillna(0).astype(int))
    return table.set_index(["level", "seen", "round", "metric"]).value.unstack()


def expected(noise: float, rounds: int) -> float:
    """Φ(Φ⁻¹(1/m) + √steps / z)."""
    return float(norm.cdf(norm.ppf(1 / M) + math.sqrt(STEPS * rounds) / noise))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(scenario(), out=tmp_path_factory.mktemp("healthy"))


def test_bound_is_that_of_all_steps_up_to_the_round(healthy: Path) -> None:
    bounds = table_of(healthy)["shadow_identified.bound"]
    for level, seen in (("local", "owner"), ("global", "aggregate")):
        assert [bounds[level, seen, number] for number in (1, 2, 0)] == pytest.approx(
            [expected(3.0, 1), expected(3.0, 2), expected(3.0, 2)], rel=1e-9
        )


def test_noise_that_is_missing_shows_above_the_bound(healthy: Path, tmp_path: Path) -> None:
    with broken("no_noise"):
        silent = table_of(run(scenario(), out=tmp_path))
    loud = table_of(healthy)
    place = ("local", "owner", 2)
    assert silent["shadow_identified.bound"][place] == loud["shadow_identified.bound"][place] < 0.7
    assert silent["shadow_identified"][place] == 1.0
    assert loud["shadow_identified"][place] < loud["shadow_identified.bound"][place]


def test_no_noise_no_bound_and_none_without_all_models(healthy: Path) -> None:
    from fedmem.estimation.estimates import estimate
    from fedmem.privacy.identification_bounds import identification_bounds

    made, bank = scenario(), read_bank(healthy)
    rows = estimate(bank, made.estimators, made.bootstrap, made.signals)
    assert len(list(identification_bounds(made, bank, rows))) == 9
    fewer = [replace(row, reading=replace(row.reading, n=row.reading.n - 1)) for row in rows]
    assert not list(identification_bounds(made, bank, fewer))
    assert not list(identification_bounds(scenario(noise=0.0), bank, rows))
    plain = scenario(client={"kind": "sgd", "batch_size": 500}, privacy={})
    assert not list(identification_bounds(plain, bank, rows))


def test_copies_and_rounds_of_participation_count(healthy: Path) -> None:
    made, bank = scenario(), read_bank(healthy)

    def share(bank: Any, victim: int = 0, until: int = 2) -> float | None:
        return largest_share(made, bank, victim, "local", until, 1 / M)

    twice = _with_audit(bank, copies=np.full(M, 2, np.int32))
    assert share(twice) == pytest.approx(expected(1.5, 2))
    assert share(bank, until=0) == 1 / M
    without = _Changed(bank, participation=[part for part in bank.participation if part.round == 1])
    assert share(without) == pytest.approx(expected(3.0, 1))


def test_prior_is_the_largest_share_of_equal_candidates(healthy: Path) -> None:
    audit = read_bank(healthy).audit
    assert prior_of(audit, 0) == 1 / M
    fewer = prior_of(replace(audit, is_in=audit.is_in[:6]), 0)
    assert fewer is not None
    assert fewer >= 2 / 6
    assert prior_of(audit, 1) is None
    assert prior_of(replace(audit, copies=np.array([1, 1, 1, 2], np.int32)), 0) is None
    assert prior_of(replace(audit, stop=np.array([1, 2, 2, 2], np.int32)), 0) is None


def test_unknown_batches_lower_the_bound(healthy: Path) -> None:
    bank = read_bank(healthy)
    client = {"kind": "dp_sgd", "steps": 4, "batch_size": 8, "noise_multiplier": 1.0}
    known, unknown = (
        largest_share(scenario(client=client, batches=batches), bank, 0, "global", 1, 1 / M)
        for batches in ("shared", "per_run")
    )
    assert known == pytest.approx(norm.cdf(norm.ppf(1 / M) + 2.0))
    assert unknown is not None
    assert 1 / M < unknown < 0.5


def test_noise_of_the_server_protects_the_aggregate_alone(healthy: Path) -> None:
    bank = read_bank(healthy)
    server = scenario(
        client={"kind": "sgd", "batch_size": 500},
        strategy={"kind": "dp_fedavg", "clip": 1.0, "noise_multiplier": 2.0, "expected_cohort_size": 5},
    )
    assert largest_share(server, bank, 0, "local", 2, 1 / M) is None
    assert largest_share(server, bank, 0, "global", 2, 1 / M) == pytest.approx(
        norm.cdf(norm.ppf(1 / M) + math.sqrt(2) / 2)
    )
    both = scenario(strategy={"kind": "dp_fedavg", "clip": 1.0, "noise_multiplier": 0.0, "expected_cohort_size": 5})
    assert largest_share(both, bank, 0, "global", 2, 1 / M) == pytest.approx(expected(3.0, 2)), "the smallest counts"


def test_noise_of_messages_protects_both_levels(healthy: Path) -> None:
    made = scenario(
        client={"kind": "sgd", "batch_size": 500},
        defences=[{"kind": "clip", "norm": 0.5}, {"kind": "noise", "multiplier": 2.0, "norm": 0.5}],
    )
    for level in ("local", "global"):
        assert largest_share(made, read_bank(healthy), 0, level, 2, 1 / M) == pytest.approx(
            norm.cdf(norm.ppf(1 / M) + math.sqrt(2) / 2)
        )


def test_bayes_guesses_from_sampled_sums_stay_below() -> None:
    """The best guess among candidates with orthogonal contributions, each in a step with probability q."""
    rng, steps, noise, rate, m, trials = np.random.default_rng(0), 3, 0.5, 0.3, 4, 20_000
    truth = rng.integers(m, size=trials)
    outputs = noise * rng.standard_normal((trials, steps, m))
    outputs[np.arange(trials), :, truth] += rng.random((trials, steps)) < rate
    ratio = np.log1p(rate * np.expm1((outputs - 0.5) / noise**2)).sum(axis=1)
    success = (ratio.argmax(axis=1) == truth).mean()
    released = Releases(noise_multiplier=noise, sampling="poisson", rate=rate, count=steps, delta=1e-5, unit="record")
    bound = module._sampled_share(1 / m, released)
    assert 0.4 < success < bound < 0.8
    assert bound < module._share(1 / m, noise, steps)


class _Changed:
    """A bank with other values of some fields."""

    def __init__(self, bank: Any, **fields: Any) -> None:
        self.__dict__.update({name: getattr(bank, name) for name in ("audit", "participation", "roster")} | fields)


def _with_audit(bank: Any, **fields: Any) -> Any:
    return _Changed(bank, audit=replace(bank.audit, **fields))
