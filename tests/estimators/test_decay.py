"""Tests of `fedmem/estimators/decay.py` and of the values since the last use that it reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmem
from fedmem.attacks.lira import Lira
from fedmem.attacks.modified_entropy import ModifiedEntropy
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.evidence import Bank, Evidence, ReferenceEvidence
from fedmem.errors import ComponentError
from fedmem.estimation import since_use
from fedmem.estimation.estimates import estimate
from fedmem.estimation.since_use import pair_with_start, starts_of, uses
from fedmem.estimators import decay
from fedmem.estimators.decay import Decay
from tests.banks import coins
from tests.estimators.series_helpers import bank_of_margins, summaries
from tests.tiny import tiny

CLIENTS, PER_CLIENT, ROUNDS, RUNS = 6, 4, 24, 16
LEFT, ROWS = 0.8, 10
"""What a turn leaves of the weights before it, (1 − ηλ)^E, and the rows of a client."""


def log_odds(p: FloatArray) -> FloatArray:
    return np.log(p) - np.log1p(-p)


def schedule(seed: int = 0) -> list[list[int]]:
    """Two clients in each round; client 0 comes twice as often as the others."""
    rng = np.random.default_rng(seed)
    chance = np.array([2.0, 1, 1, 1, 1, 1]) / 7
    return [sorted(rng.choice(CLIENTS, 2, replace=False, p=chance).tolist()) for _ in range(ROUNDS)]


def quadratic(noise: float = 0.0, seed: int = 0, cohorts: list[list[int]] | None = None) -> Bank:
    """Clients with the loss ½λ(w − z)², whose mean z has one of its rows in or out, and FedAvg by unequal sizes.

    A client goes from w to q w + (1 − q) z. The aggregate is the mean of the clients. So training on an example adds
    p (1 − q) / n to the aggregate of its round, and each later round leaves q of it, whichever clients train.
    """
    rng = np.random.default_rng(seed)
    m = CLIENTS * PER_CLIENT
    owner = np.repeat(np.arange(CLIENTS), PER_CLIENT)
    is_in = coins(RUNS, m, rng)
    size = np.linspace(1, 3, CLIENTS)
    effect = np.linspace(1, 2, m)  # examples differ
    weights = np.zeros((RUNS, m))
    whole, local = [], {}
    for round_number, cohort in enumerate(cohorts or schedule(), start=1):
        models = {}
        for client in cohort:
            target = is_in * (owner == client) * effect / ROWS * 4
            models[client] = LEFT * weights + (1 - LEFT) * target
        shares = size[cohort] / size[cohort].sum()
        weights = sum(share * models[client] for share, client in zip(shares, cohort, strict=True))

        def shown(w: FloatArray) -> FloatArray:
            return log_odds(np.clip(0.3 + w + noise * rng.normal(size=w.shape), 1e-6, 1 - 1e-6))

        whole.append(shown(weights))
        local[round_number] = {client: shown(model) for client, model in models.items()}
    return bank_of_margins(np.stack(whole), is_in, local=local, owner=owner.tolist())


def rows_of(bank: Bank, metric: str, level: str = "global", **options: Any) -> dict[int, Any]:
    """Rows of the kind by the rounds since use."""
    return {
        row.reading.labels.integer("since"): row.reading
        for row in estimate(bank, [Decay(**options)], 50)
        if (row.reading.metric, row.level, row.reading.subject) == (metric, level, "typical")
        and "contrast" not in row.reading.labels
    }


def check_exponential(bank: Bank | None = None) -> None:
    shares = rows_of(bank or quadratic(), "decay_share")
    assert len(shares) >= 5
    for since, share in shares.items():
        assert share.value == pytest.approx(LEFT**since, rel=1e-6)


def test_share_that_is_left_is_the_exact_exponential() -> None:
    check_exponential()


def test_levels_at_use_are_those_of_the_recursion() -> None:
    """With one use of each client, dilution at d = 0 is the weight of the client, and then each round leaves q."""
    cohorts = [[0, 1], [2, 3], [4, 5]]
    bank = quadratic(cohorts=cohorts)
    whole, own = rows_of(bank, "decay"), rows_of(bank, "decay", "local")
    effect = np.linspace(1, 2, CLIENTS * PER_CLIENT)
    owner = np.repeat(np.arange(CLIENTS), PER_CLIENT)
    size = np.linspace(1, 3, CLIENTS)
    shares = (size.reshape(3, 2) / size.reshape(3, 2).sum(1, keepdims=True)).ravel()[owner]
    at_owner = (1 - LEFT) * effect * 4 / ROWS
    assert own[0].value == pytest.approx(at_owner.mean())
    assert whole[0].value == pytest.approx((shares * at_owner).mean())
    early = owner < 4  # those whose use is a round or more before the end
    assert whole[1].value == pytest.approx(LEFT * (shares * at_owner)[early].mean())
    assert own[1].value == pytest.approx(at_owner[early].mean()), "the owner keeps its model while it is away"
    assert [whole[since].n for since in range(3)] == [24, 16, 8]
    change = rows_of(bank, "decay_change")
    assert change[1].value == pytest.approx((LEFT - 1) * (shares * at_owner)[early].mean())
    assert 0 not in change


def test_retention_is_dilution_times_decay() -> None:
    bank = quadratic(cohorts=[[0, 1], [2, 3], [4, 5]])
    whole, own = rows_of(bank, "decay"), rows_of(bank, "decay", "local")
    kept = {
        row.reading.labels.integer("since"): row.reading.value
        for row in estimate(bank, [Decay()], 50)
        if row.reading.metric == "retention"
    }
    assert kept[1] == pytest.approx(whole[1].value / own[1].value)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("starts_of", lambda used, since, ends=None: used[: len(used) - since]),  # with a later use inside
        ("starts_of", lambda used, since, ends=None: np.roll(starts_of(used, since), 1, axis=0)),  # of a wrong round
        (
            "pair_with_start",
            lambda values, used, since, moves=True, ends=None: replace(
                pair_with_start(values, used, since, moves=moves),
                now=pair_with_start(values, used, since - 1 if since else 0).now,
            ),
        ),
    ],
)
def test_wrong_round_or_use_inside_is_found(
    name: str, broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decay if name == "pair_with_start" else since_use, name, broken)
    with pytest.raises(AssertionError):
        check_exponential()


def test_at_risk_counts_are_examples_with_a_start() -> None:
    bank = quadratic()
    view = summaries(bank)[""]
    assert view.series is not None
    used = uses(view.series, bank.audit)
    for since, row in rows_of(bank, "decay").items():
        assert row.n == int(starts_of(used, since).any(0).sum())


def test_use_of_some_runs_ends_the_time_since_another() -> None:
    """A client fails in one run in each of its rounds but its first: nobody knows when all runs used its examples."""
    bank = quadratic()
    rounds = [number for number, cohort in enumerate(schedule(), start=1) if 0 in cohort]
    is_lost = [(part.level, part.round in rounds[1:]) == ("local", True) for part in bank.evidence]
    pairs = zip(bank.evidence, is_lost, strict=True)
    failed = replace(bank, evidence=tuple(without_model(part, 3, 0) if lost else part for part, lost in pairs))
    view = summaries(failed)[""]
    assert view.series is not None
    assert uses(view.series, failed.audit)[:, 0].nonzero()[0].tolist() == [rounds[0] - 1]
    check_exponential(failed)


def without_model(part: Evidence, run: int, client: int) -> Evidence:
    stays = (part.run != run) | (part.client != client)
    rows = {name: getattr(part, name)[stays] for name in ("run", "client", "loss", "margin", "correct")}
    return replace(part, **rows)


def test_window_ends_uses_and_not_participations() -> None:
    bank = quadratic()
    view = summaries(bank)[""]
    stopped = replace(bank.audit, stop=np.full(len(bank.audit), 3, dtype=np.int32))
    assert view.series is not None
    used = uses(view.series, stopped)
    assert not used[3:].any()
    assert used[:3].any()
    late = replace(bank.audit, start=np.full(len(bank.audit), 20, dtype=np.int32))
    assert not uses(view.series, late)[:19].any()


def test_example_of_several_clients_is_left_out() -> None:
    bank = quadratic()
    view = summaries(bank)[""]
    copies = np.ones(len(bank.audit), np.int32)
    copies[0] = 2
    owners = np.concatenate([[0, 1], bank.audit.owner[1:]]).astype(np.int32)
    shared = replace(bank.audit, copies=copies, copy_owner=owners)
    assert view.series is not None
    used = uses(view.series, shared)
    assert not used[:, 0].any()
    np.testing.assert_array_equal(used[:, 1:], uses(view.series, bank.audit)[:, 1:])


def test_change_compares_no_two_populations() -> None:
    """Owners that come often hold what is memorised less, and nothing fades: raw values rise, changes do not."""
    rng = np.random.default_rng(4)
    owner = np.repeat(np.arange(2), 8)
    is_in = coins(RUNS, 16, rng)
    height = np.where(owner == 0, 0.1, 0.4) * (1 + 0.1 * rng.normal(size=16))
    margin = log_odds(0.2 + height * is_in + 0.01 * rng.random(is_in.shape))
    rounds = range(1, 9)
    local = {number: {0: margin} | ({1: margin} if number in (1, 7) else {}) for number in rounds}
    bank = bank_of_margins(np.stack([margin] * 8), is_in, local=local, owner=owner.tolist())
    raw, change = rows_of(bank, "decay"), rows_of(bank, "decay_change")
    assert raw[3].value > raw[0].value + 0.1
    assert all(row.value == pytest.approx(0, abs=1e-12) for row in change.values())
    assert raw[3].n == 8


def test_half_life_is_where_half_is_left() -> None:
    """0.8³ = .51 and 0.8⁴ = .41."""
    (reading,) = (
        row.reading for row in estimate(quadratic(noise=0.001), [Decay()], 50) if row.reading.metric == "half_life"
    )
    assert (reading.value, reading.subject) == (4, "typical")
    assert 3 <= reading.low <= 4 <= reading.high <= 5


def test_half_life_is_undefined_where_nothing_halves() -> None:
    readings = [
        row.reading
        for row in estimate(quadratic(noise=0.001), [Decay(longest=2)], 50)
        if row.reading.metric == "half_life"
    ]
    assert [math.isnan(reading.value) for reading in readings] == [True]
    few = quadratic(cohorts=[[0, 1], [0, 1], [0, 1]])  # no client is ever away
    assert [row for row in estimate(few, [Decay()], 50) if row.reading.metric == "half_life"] == []


def test_share_is_undefined_without_memory_at_use() -> None:
    rng = np.random.default_rng(6)
    bank = quadratic()
    noise = rng.normal(size=(ROUNDS, RUNS, CLIENTS * PER_CLIENT))
    local = {number: dict.fromkeys(cohort, noise[0]) for number, cohort in enumerate(schedule(), start=1)}
    null = bank_of_margins(noise, bank.audit.is_in, local=local, owner=bank.audit.owner.tolist())
    shares = rows_of(null, "decay_share")
    assert sum(math.isnan(share.value) for share in shares.values()) >= len(shares) - 1


def with_ranks(bank: Bank, references: int = 99) -> Bank:
    """The bank with the rank that the loss of each example has among losses of evenly spaced probabilities."""
    losses = -np.log((np.arange(references) + 0.5) / references)

    def ranked(part: Evidence) -> ReferenceEvidence:
        less = (losses < part.loss[..., None]).sum(-1).astype(np.int32)
        return ReferenceEvidence(
            round=part.round,
            level=part.level,
            family="random_pattern",
            run=part.run,
            client=part.client,
            subjects=np.arange(part.loss.shape[1]),
            count=references,
            less=less,
            ties=np.zeros_like(less),
            labels=np.array([0]),
            quantiles=np.zeros((len(less), 1, 256), np.float32),
        )

    return replace(bank, references=tuple(map(ranked, bank.evidence)))


def test_exposure_of_each_round_is_read() -> None:
    bank = with_ranks(quadratic())
    whole, own = (rows_of(bank, "decay_exposure", level) for level in ("global", "local"))
    p = 1 / (1 + np.exp(-np.stack([part.margin for part in bank.evidence if part.level == "global"])))
    bits = np.log2(100 / (1 + (p[..., None] < (np.arange(99) + 0.5) / 99).sum(-1)))
    view = summaries(bank)[""]
    assert view.series is not None
    found = pair_with_start(bits, uses(view.series, bank.audit), 2)
    is_in = bank.audit.is_in
    with np.errstate(invalid="ignore"):
        gains = [np.where(side, found.now, 0).sum(0) / side.sum(0) for side in (is_in, ~is_in)]
    assert whole[2].value == pytest.approx(np.nanmean(gains[0] - gains[1]))
    assert own[0].value > whole[0].value > whole[4].value > 0
    assert not rows_of(quadratic(), "decay_exposure")


def test_scores_of_an_attack_fade() -> None:
    bank = quadratic(noise=0.02)
    rows = {
        row.reading.labels.integer("since"): row.reading
        for row in estimate(bank, [Decay(attack=Lira())], 50)
        if row.reading.metric == "decay_score" and row.level == "global" and row.reading.subject == "typical"
    }
    assert rows[0].value > rows[3].value > -0.2
    assert rows[0].labels.get("attack") == "lira"


@pytest.mark.parametrize("change", ["rounds", "roster", "levels"])
def test_unobserved_rounds_are_refused(change: str) -> None:
    bank = quadratic()
    evidence = tuple(
        part
        for part in bank.evidence
        if not (change == "rounds" and part.round == 5) and not (change == "levels" and part.level == "local")
    )
    bank = replace(bank, evidence=evidence, roster="per_run" if change == "roster" else "shared")
    with pytest.raises(ComponentError, match=r"write observe: \{every: 1\} with the levels local and global"):
        estimate(bank, [Decay()], 10)


def test_other_attacks_are_not_margins_alone() -> None:
    from fedmem.scenario.check_series import _margins_alone

    (problem,) = _margins_alone([Decay(attack=ModifiedEntropy())])
    assert problem.path == "estimators[0].attack"
    assert "use an attack such as {kind: lira}" in problem.message
    assert not list(_margins_alone([Decay(attack=Lira())]))


def scores_after_stop(fresh: float) -> dict[int, Any]:
    """Scores of everyone's examples after round 3, the last one with them; with this much fresh noise in each round.

    Margins are weights, and runs differ in their initial weights.
    """
    rng = np.random.default_rng(8)
    m = 24
    is_in = coins(RUNS, m, rng)
    weights = rng.normal(size=(RUNS, m))
    whole = []
    for round_number in range(1, 11):
        target = is_in * (round_number <= 3) * np.linspace(4, 6, m)
        weights = LEFT * weights + (1 - LEFT) * target + fresh * rng.normal(size=weights.shape)
        whole.append(weights)
    local = {number: {0: margin} for number, margin in enumerate(whole, start=1)}
    bank = bank_of_margins(np.stack(whole), is_in, local=local)
    bank = replace(bank, audit=replace(bank.audit, stop=np.full(m, 3, dtype=np.int32)))
    return {
        row.reading.labels.integer("since"): row.reading
        for row in estimate(bank, [Decay(attack=Lira())], 20)
        if (row.reading.metric, row.level, row.reading.subject) == ("decay_score", "global", "typical")
    }


def test_without_fresh_noise_an_attack_forgets_nothing() -> None:
    """All differences between runs shrink alike, so that the attack sees the same; noise of new batches hides them."""
    still, noisy = scores_after_stop(0.0), scores_after_stop(0.3)
    assert sorted(still) == list(range(8))
    for since in range(2, 8):
        assert still[since].value == pytest.approx(still[1].value)
    assert noisy[7].value < noisy[1].value / 2


@pytest.mark.slow
@pytest.mark.statistical
def test_aggregate_of_real_clients_forgets(tmp_path: Path) -> None:
    scenario = tiny(
        runs=8,
        rounds=10,
        clients=4,
        dataset={"kind": "digits"},
        model={"kind": "mlp", "hidden": [16]},
        injections=[{"kind": "random_pattern", "per_client": 4, "stop": 3}],
        sampler={"kind": "everyone"},
        client={"kind": "sgd", "lr": 0.3, "epochs": 3, "batch_size": 20},
        observe={"every": 1},
        estimators=[{"kind": "decay"}],
    )
    frame = fedmem.read(fedmem.run(scenario, out=tmp_path)).measurements
    change = frame[(frame.metric == "decay_change") & (frame.subject == "random_pattern") & (frame.since >= 5)]
    assert len(change) == 3
    assert (change.high < 0).all()
    assert (change.n == 16).all()
