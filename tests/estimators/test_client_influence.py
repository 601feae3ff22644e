from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import stdtrit

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Models, SetEvidence
from fedmem.contracts.evidence import Evidence
from fedmem.contracts.measurement import Labels, Reading
from fedmem.estimators.client_influence import ClientInfluence
from tests.banks import coins, make_view
from tests.labelling import labels


def seen(loss: FloatArray, there: BoolArray) -> dict[str, Reading]:
    """What is said of the test loss when the models of R runs have these losses."""
    test = -np.log(np.expm1(np.repeat(loss[:, None], 3, axis=1)))
    is_in = coins(len(loss), 1, np.random.default_rng(0))
    view = make_view(np.zeros((len(loss), 1)), is_in, test=test, round_number=None, client_in=there)
    return {r.subject: r for _, r in ClientInfluence().tests(view) if r.labels == labels("statistic=loss")}


def gap(loss: FloatArray, there: BoolArray) -> float:
    """The mean over clients by the definition."""
    return float(np.mean([loss[coin].mean() - loss[~coin].mean() for coin in there.T]))


@pytest.mark.parametrize("broken", [(), (2,)])
def test_the_mean_has_the_interval_of_a_jackknife_over_runs(broken: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    there, loss = coins(12, 5, rng), 5 + rng.normal(size=12)
    diverged = np.isin(np.arange(12), broken)
    mean = seen(np.where(diverged, np.nan, loss), there)[""]
    # A run that has diverged is no run.
    loss, there = loss[~diverged], there[~diverged]
    runs = len(loss)
    without = np.array([gap(np.delete(loss, r), np.delete(there, r, axis=0)) for r in range(runs)])
    half = stdtrit(runs - 1, 0.975) * np.sqrt((runs - 1) / runs * np.square(without - without.mean()).sum())
    assert mean.value == pytest.approx(gap(loss, there))
    assert mean.n == 5
    assert (mean.low, mean.high) == pytest.approx((mean.value - half, mean.value + half))
    assert half != pytest.approx(stdtrit(runs - 1, 0.975) * without.std() / np.sqrt(runs))  # the spread of means


@pytest.mark.parametrize(("runs", "clients", "some"), [(8, 8, True), (8, 9, False), (4, 3, True)])
def test_with_fewer_runs_than_clients_the_mean_has_no_interval(runs: int, clients: int, some: bool) -> None:
    rng = np.random.default_rng(2)
    there = coins(runs, clients, rng)
    found = seen(5 + rng.normal(size=runs), there)
    assert np.isnan(found[""].low) != some
    assert np.isnan(found[""].high) != some
    assert np.isfinite([found[""].value, *(found[f"client {k}"].low for k in range(clients))]).all()


def test_where_nothing_varies_nothing_is_certain() -> None:
    there = coins(8, 3, np.random.default_rng(3))
    for row in seen(np.full(8, 0.3), there).values():
        assert row.value == 0
        assert np.isnan([row.low, row.high]).all()


def test_runs_that_have_all_diverged_say_nothing() -> None:
    assert seen(np.full(8, np.nan), coins(8, 3, np.random.default_rng(4))) == {}


def evidence(round_number: int, correct: FloatArray, members: str = "audit") -> Evidence:
    """Aggregates of one round that are right where this says so, (R, n)."""
    return Evidence(
        round=round_number,
        level="global",
        set=members,
        run=np.arange(len(correct), dtype=np.int32),
        client=np.full(len(correct), -1, np.int32),
        loss=1.0 - correct,
        margin=2.0 * correct - 1,
        correct=correct > 0.5,
    )


def seen_at(
    blocks: Sequence[Evidence], is_in: BoolArray, owner: Sequence[int], there: BoolArray
) -> dict[tuple[str, Labels], float]:
    """All that is said of aggregates that were observed at several rounds, the last of them read."""
    view = make_view(np.zeros(is_in.shape), is_in, round_number=None, client_in=there)
    models = Models(
        runs=len(is_in),
        round=np.array(sorted({block.round for block in blocks})),
        client=np.full(len({block.round for block in blocks}), -1),
        of=np.full((1, is_in.shape[1]), len({block.round for block in blocks}) - 1),
    )
    targets = np.zeros(is_in.shape[1], np.int64)
    sets = {
        name: SetEvidence(models=models, blocks=tuple(b for b in blocks if b.set == name), targets=targets)
        for name in {block.set for block in blocks}
    }
    audit = replace(view.audit, owner=np.array(owner, np.int32))
    return {(r.subject, r.labels): r.value for _, r in ClientInfluence().tests(replace(view, audit=audit, sets=sets))}


THERE = np.array([[True, True], [True, False], [False, True], [False, False]] * 2)


def test_influence_is_read_at_the_last_aggregate() -> None:
    """The first aggregate is the worse for client 0, the last the better; client 1 does nothing at either."""
    helped = np.repeat(THERE[:, :1], 4, axis=1).astype(float)
    blocks = [
        evidence(round_number, values, members)
        for members in ("audit", "test")
        for round_number, values in ((0, np.ones((8, 4))), (3, 1 - helped), (9, helped))
    ]
    is_in = np.repeat(np.array([[True], [False]] * 4), 4, axis=1)
    found = seen_at(blocks, is_in, [0, 0, 1, 1], THERE)
    for about in ("statistic=accuracy", "statistic=accuracy target=0", "statistic=own"):
        assert (found["client 0", labels(about)], found["client 1", labels(about)]) == (1.0, 0.0)
    assert (found["client 0", labels("statistic=loss")], found["client 1", labels("statistic=loss")]) == (-1.0, 0.0)


def test_own_in_reads_what_is_in_and_own_reads_all() -> None:
    """Where a client is there, what is in is answered, what is out is not: 1 of what is in, half of all."""
    is_in = np.array([[True, False]] * 4 + [[False, True]] * 4)
    correct = (THERE[:, :1] & is_in).astype(float)
    found = seen_at([evidence(9, correct)], is_in, [0, 0], THERE)
    assert (found["client 0", labels("statistic=own_in")], found["client 0", labels("statistic=own")]) == (1.0, 0.5)


def test_a_run_whose_last_model_has_diverged_is_no_wrong_one() -> None:
    is_in = np.repeat(np.array([[True], [False]] * 4), 2, axis=1)
    correct = np.ones((8, 2))
    block = evidence(9, correct)
    broken = replace(
        block,
        loss=np.where(np.arange(8)[:, None] == 0, np.nan, block.loss),
        correct=block.correct & (np.arange(8)[:, None] != 0),
    )
    found = seen_at([broken], is_in, [0, 0], THERE)
    assert found["client 0", labels("statistic=own")] == 0.0, (
        "all that is known is right, with the client and without it"
    )
