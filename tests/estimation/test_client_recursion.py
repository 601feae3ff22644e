"""Tests of `fedmem/estimation/client_recursion.py`: quadratic clients, whose retraining the recursion predicts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.estimation import client_recursion
from fedmem.estimation.client_recursion import Response, RoundOfClients, shift_without

RATE, STEPS, SIZE = 0.15, 3, 4
SIZES = np.array([5.0, 2.0, 9.0, 1.0])


def objectives(diagonal: bool) -> tuple[FloatArray, FloatArray]:
    """Hessians (N, P, P) and optima (N, P) of quadratic clients."""
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(len(SIZES), SIZE, SIZE))
    matrices = np.stack([np.diag(rng.uniform(0.2, 3, SIZE)) if diagonal else r @ r.T / SIZE for r in roots])
    return matrices, rng.normal(size=(len(SIZES), SIZE))


def locally(model: FloatArray, matrix: FloatArray, optimum: FloatArray) -> FloatArray:
    for _ in range(STEPS):
        model = model - RATE * matrix @ (model - optimum)
    return model


def train(cohorts: Sequence[Sequence[int]], diagonal: bool, without: int = -1) -> list[FloatArray]:
    """The aggregates of all rounds, the initial one first."""
    matrices, optima = objectives(diagonal)
    models = [np.ones(SIZE)]
    for cohort in cohorts:
        members = [k for k in cohort if k != without]
        sent = [locally(models[-1], matrices[k], optima[k]) for k in members]
        models.append(np.average(sent, axis=0, weights=SIZES[members]) if members else models[-1])
    return models


COHORTS = [[0, 1, 2, 3], [0, 2], [1], [1, 2, 3], [0, 3], []]


def largest_error(diagonal: bool = False) -> float:
    """Of the predicted moves, against real training without each client."""
    matrices, optima = objectives(diagonal)
    models = train(COHORTS, diagonal)
    retrained = [train(COHORTS, diagonal, without=k) for k in range(len(SIZES))]
    shift, error = np.zeros((len(SIZES), SIZE)), 0.0

    def response_of(client: int) -> Response:
        power = np.linalg.matrix_power(np.eye(SIZE) - RATE * matrices[client], STEPS)
        return lambda moved: moved @ power

    for number, cohort in enumerate(COHORTS):
        if cohort:
            rnd = RoundOfClients(
                clients=np.array(cohort),
                sizes=SIZES[cohort],
                before=models[number],
                sent=np.stack([locally(models[number], matrices[k], optima[k]) for k in cohort]),
                after=models[number + 1],
                responses=[response_of(k) for k in cohort],
            )
            shift = shift_without(shift, rnd)
        truth = np.stack([models_without[number + 1] - models[number + 1] for models_without in retrained])
        error = max(error, float(np.abs(shift - truth).max()))
    return error


@pytest.mark.parametrize("diagonal", [True, False])
def test_quadratic_clients_move_as_retraining_says(diagonal: bool) -> None:
    assert largest_error(diagonal) < 1e-12


@pytest.mark.parametrize("broken", ["sign", "no response", "weights of all"])
def test_a_broken_recursion_misses_retraining(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    real = client_recursion.shift_without

    def changed(shift: FloatArray, rnd: RoundOfClients) -> FloatArray:
        if broken == "sign":
            return -real(shift, rnd)
        if broken == "no response":
            responses = [lambda moved: moved] * len(rnd.clients)
        else:  # the published sum over all clients, with the weights of the whole cohort
            mean = sum(w * r(shift) for w, r in zip(rnd.sizes / rnd.sizes.sum(), rnd.responses, strict=True))
            responses = [lambda moved: mean] * len(rnd.clients)
        return real(shift, RoundOfClients(**{**vars(rnd), "responses": responses}))

    monkeypatch.setitem(globals(), "shift_without", changed)
    assert largest_error() > 1e-3


def test_without_rows_all_weigh_the_same() -> None:
    rnd = RoundOfClients(
        clients=np.array([0, 1, 2]),
        sizes=np.array([4.0, 0.0, 0.0]),
        before=np.zeros(1),
        sent=np.array([[1.0], [2.0], [6.0]]),
        after=np.array([1.0]),
        responses=[lambda moved: moved] * 3,
    )
    np.testing.assert_allclose(shift_without(np.zeros((3, 1)), rnd)[:, 0], [3.0, 0.0, 0.0])


def test_a_client_that_never_came_moves_no_rounded_aggregate() -> None:
    rnd = RoundOfClients(
        clients=np.array([0, 1]),
        sizes=np.array([1.0, 2.0]),
        before=np.zeros(1),
        sent=np.array([[0.1], [0.2]]),
        after=np.array([np.float32((0.1 + 0.2 * 2) / 3)], dtype=np.float64),
        responses=[lambda moved: moved / 2] * 2,
    )
    assert shift_without(np.zeros((3, 1)), rnd)[2] == 0.0
