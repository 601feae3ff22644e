"""Server optimisers and reweighted means against plain loops in float64, and against what would be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp import strategy as flwr_strategy

from fedmem.engines._flower import in_process
from strategies._rule import ALONE, share
from strategies.fedadagrad import FedAdagrad
from strategies.fedadam import FedAdam
from strategies.fedavg import FedAvg
from strategies.fedexp import FedExP
from strategies.fedyogi import FedYogi
from strategies.qfedavg import QFedAvg
from tests.cohorts import Cohort, by_messages, by_rule, cohort, flat, models, one_round, stacked


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


class Stock:
    """A class of Flower's in the place of one of ours."""

    def __init__(self, kind: type, **fields: Any) -> None:
        self._kind, self._fields = kind, fields

    def make(self, cohort_size: int) -> Any:
        return self._kind(**ALONE, **self._fields)


def mean_update(there: Cohort, w: np.ndarray) -> np.ndarray:
    out: np.ndarray = np.average([flat(model) for model in there.sent], axis=0, weights=there.sizes) - w
    return out


# --- Adam, Yogi, Adagrad ----------------------------------------------------------------------------------------------

SECONDS: dict[str, tuple[Any, Callable[[Any, Any], Any]]] = {
    "adam": (FedAdam(server_lr=0.1, beta_1=0.8, beta_2=0.95, tau=0.1), lambda v, d: 0.95 * v + 0.05 * d**2),
    "yogi": (
        FedYogi(server_lr=0.1, beta_1=0.8, beta_2=0.95, tau=0.1),
        lambda v, d: v - 0.05 * d**2 * np.sign(v - d**2),
    ),
    "adagrad": (FedAdagrad(server_lr=0.1, beta_1=0.8, tau=0.1), lambda v, d: v + d**2),
}


@pytest.mark.parametrize("name", SECONDS)
def test_adaptive_servers_follow_the_published_recursion(name: str) -> None:
    """Four rounds of Reddi et al. (2021), algorithm 2, in plain numpy with float64; another second moment is seen."""
    rng = np.random.default_rng(5)
    strategy, _ = SECONDS[name]
    before, rounds = models(rng, 1), [cohort(rng, 2) for _ in range(4)]
    # a coordinate that moves far at first and little later, so that Yogi takes both of its branches
    rounds = [
        there.sending([{n: before[0][n] + (v - before[0][n]) / 3**i for n, v in m.items()} for m in there.sent])
        for i, there in enumerate(rounds)
    ]
    got = [flat({n: v[0] for n, v in after.items()}) for after in by_rule(strategy, [[c] for c in rounds], before)]

    def followed(second: Callable[[Any, Any], Any]) -> list[np.ndarray]:
        w, found = flat(before[0]), []
        m, v = np.zeros_like(w), np.full_like(w, 0.01)
        for there in rounds:
            d = mean_update(there, w)
            m, v = 0.8 * m + 0.2 * d, second(v, d)
            w = w + 0.1 * m / (np.sqrt(v) + 0.1)
            found.append(w)
        return found

    for other, (_, second) in SECONDS.items():
        same = np.allclose(got, followed(second), rtol=1e-4, atol=1e-5)
        assert same == (other == name), other
    flipped = followed(lambda v, d: np.maximum(v + 0.05 * d**2 * np.sign(v - d**2), 0))
    assert not np.allclose(got, flipped, rtol=1e-4, atol=1e-5)


def test_a_coordinate_that_fell_silent_stays_slow_for_longer_under_yogi() -> None:
    """After one update of 1 and forty of 0.1, Adam has forgotten the first, and Yogi two fifths of it."""
    rng = np.random.default_rng(0)
    before = {"w": torch.zeros(1)}
    sizes = [1.0] + [0.1] * 40
    steps = {}
    for strategy in (FedAdam(beta_1=0.0, beta_2=0.9), FedYogi(beta_1=0.0, beta_2=0.9)):
        w, path = 0.0, []
        state = strategy.state({"w": before["w"][None]}, 1)
        for number, size in enumerate(sizes, start=1):
            there = cohort(rng, 1).sending([{"w": torch.tensor([w + size])}])
            after, state = strategy.rule(state, stacked(number, [there], {"w": torch.tensor([[w]])}))
            path.append(after["w"].item() - w)
            w = after["w"].item()
        steps[type(strategy).__name__] = path[-1]
    assert steps["FedYogi"] < 0.5 * steps["FedAdam"]


@pytest.mark.parametrize(
    ("ours", "theirs", "betas"),
    [
        (FedYogi, flwr_strategy.FedYogi, {"beta_1": 0.8, "beta_2": 0.95}),
        (FedAdagrad, flwr_strategy.FedAdagrad, {}),
    ],
)
def test_flowers_yogi_and_adagrad_differ_only_by_their_start(ours: Any, theirs: Any, betas: dict[str, float]) -> None:
    """Flower starts the second moment at zero: with a tau of next to nothing the difference is gone."""
    rng = np.random.default_rng(6)
    before, rounds = models(rng, 1)[0], [cohort(rng, 3) for _ in range(3)]
    for tau, equal in ((1e-7, True), (0.3, False)):
        one = by_messages(ours(server_lr=0.1, tau=tau, **betas), rounds, before)
        other = by_messages(Stock(theirs, eta=0.1, tau=tau, **betas), rounds, before)
        assert np.allclose(flat(one[-1]), flat(other[-1]), rtol=1e-3, atol=1e-4) == equal


def test_flowers_adam_is_not_the_published_one() -> None:
    """Why ours exists: Flower's class corrects the bias with the round plus one and widens to float64."""
    rng = np.random.default_rng(6)
    before, there = models(rng, 1)[0], cohort(rng, 2)
    ours = by_messages(FedAdam(server_lr=0.1), [there], before)[0]
    theirs = by_messages(Stock(flwr_strategy.FedAdam, eta=0.1), [there], before)[0]
    assert theirs["layer.bias"].dtype == torch.float64
    assert not torch.allclose(ours["layer.bias"], theirs["layer.bias"].float(), rtol=0.05)


# --- FedExP -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["size", "uniform"])
@pytest.mark.parametrize("agreement", [0.0, 3.0])
def test_fedexp_is_the_published_step(weighting: Any, agreement: float) -> None:
    rng = np.random.default_rng(7)
    before, there = models(rng, 1)[0], replace(cohort(rng, 6), sizes=[10, 12, 14, 16, 18, 20])
    common = models(rng, 1)[0]
    there = there.sending([{n: v + agreement * common[n] for n, v in m.items()} for m in there.sent])
    got = flat(one_round(FedExP(weighting=weighting, epsilon=0.5), there, before))
    w, a = flat(before), np.array(there.sizes, dtype=float) if weighting == "size" else np.ones(6)
    a /= a.sum()
    u = np.stack([flat(model) - w for model in there.sent])
    d = a @ u
    ratio = float(a @ (u**2).sum(1)) / (2 * (float(d @ d) + 0.5))
    assert (ratio > 1) == (agreement == 0)
    np.testing.assert_allclose(got, w + max(1.0, ratio) * d, rtol=1e-5, atol=1e-5)
    # the factor two left out, or the smaller of the two taken, would be seen
    assert not np.allclose(got, w + max(1.0, 2 * ratio) * d, rtol=1e-3)
    assert not np.allclose(got, w + min(1.0, ratio) * d, rtol=1e-3)


def test_fedexp_without_disagreement_is_fedavg() -> None:
    rng = np.random.default_rng(8)
    before, there = models(rng, 1)[0], cohort(rng, 4)
    near = [{n: before[n] + 1.0 + 0.1 * (v - before[n]) for n, v in m.items()} for m in there.sent]
    mean = flat(one_round(FedAvg(weighting="uniform"), there.sending(near), before))
    np.testing.assert_allclose(flat(one_round(FedExP(), there.sending(near), before)), mean, rtol=1e-6, atol=1e-6)


# --- q-FedAvg ---------------------------------------------------------------------------------------------------------


def fair(there: Cohort, w: np.ndarray, q: float, lr: float) -> np.ndarray:
    """The published step, with its two sums as they stand there."""
    up, down = np.zeros_like(w), 0.0
    for model, loss in zip(there.sent, there.losses, strict=True):
        gradient = (w - flat(model)) / lr
        up += loss**q * gradient
        down += q * loss ** (q - 1) * float(gradient @ gradient) + loss**q / lr
    return w - up / down


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("lr", [0.05, 1.0])
def test_qfedavg_is_the_published_step(q: float, lr: float) -> None:
    rng = np.random.default_rng(9)
    before, there = models(rng, 1)[0], cohort(rng, 5)
    got = flat(one_round(QFedAvg(q=q, lr=lr), there, before))
    np.testing.assert_allclose(got, fair(there, flat(before), q, lr), rtol=1e-4, atol=1e-5)
    assert q == 0 or not np.allclose(got, fair(there, flat(before), q, 2 * lr), rtol=1e-3, atol=1e-4)


def test_qfedavg_with_q_0_is_the_uniform_mean() -> None:
    rng = np.random.default_rng(10)
    before, there = models(rng, 1)[0], cohort(rng, 5)
    mean = flat(one_round(FedAvg(weighting="uniform"), there, before))
    np.testing.assert_allclose(flat(one_round(QFedAvg(q=0.0), there, before)), mean, rtol=1e-5, atol=1e-6)


def test_a_larger_q_leans_to_the_client_of_the_largest_loss() -> None:
    before, there = {"w": torch.zeros(2)}, cohort(np.random.default_rng(0), 2)
    there = replace(
        there.sending([{"w": torch.tensor([0.1, 0.0])}, {"w": torch.tensor([0.0, 0.1])}]), losses=[2.0, 0.5]
    )
    leaning = []
    for q in (0.0, 1.0, 2.0):
        hard, easy = flat(one_round(QFedAvg(q=q, lr=1.0), there, before))
        leaning.append(hard / easy)
    np.testing.assert_allclose(leaning, [1.0, 4.0, 16.0], rtol=1e-5)


@pytest.mark.parametrize("q", [0.0, 1.0, 2.0])
def test_qfedavg_agrees_with_flowers(q: float) -> None:
    rng = np.random.default_rng(11)
    before, rounds = models(rng, 1)[0], [cohort(rng, 4)]
    ours = by_messages(QFedAvg(q=q, lr=0.3), rounds, before)[0]
    theirs = by_messages(Stock(flwr_strategy.QFedAvg, client_learning_rate=0.3, q=q), rounds, before)[0]
    np.testing.assert_allclose(flat(ours), flat(theirs), rtol=1e-4, atol=1e-5)
    assert theirs["layer.bias"].dtype == torch.float64


def test_a_client_without_a_finite_loss_or_model_counts_as_absent() -> None:
    rng = np.random.default_rng(12)
    before, there = models(rng, 1)[0], cohort(rng, 4)
    expected = flat(one_round(QFedAvg(), there.at([0, 2, 3]), before))
    for loss in (np.nan, np.inf):
        got = one_round(QFedAvg(), replace(there, losses=[1.0, loss, *there.losses[2:]]), before)
        silent = one_round(QFedAvg(), replace(there.at([0, 2, 3]), losses=[1.0, *there.losses[2:]]), before)
        assert np.array_equal(flat(got), flat(silent))
    broken = there.sending([m if k != 1 else {n: v / 0 for n, v in m.items()} for k, m in enumerate(there.sent)])
    assert np.array_equal(flat(one_round(QFedAvg(), broken, before)), expected)
    nobody = replace(there, losses=[np.nan] * 4)
    assert np.array_equal(flat(one_round(QFedAvg(), nobody, before)), flat(before))
    perfect = one_round(QFedAvg(), replace(there, losses=[0.0] * 4), before)
    assert np.isfinite(flat(perfect)).all()


def test_who_says_no_loss_is_told_to() -> None:
    rng = np.random.default_rng(13)
    before, there = models(rng, 1)[0], cohort(rng, 2)
    silent = replace(stacked(1, [there], {n: v[None] for n, v in before.items()}), report={})
    with pytest.raises(ValueError, match="let clients report `train_loss`"):
        QFedAvg().rule({}, silent)


# --- shares -----------------------------------------------------------------------------------------------------------


def test_clients_without_rows_share_evenly_and_do_not_erase_the_model() -> None:
    nothing, present = torch.zeros((1, 3), dtype=torch.float64), torch.tensor([[True, False, True]])
    assert share(nothing, present).tolist() == [[0.5, 0.0, 0.5]]
    assert share(nothing, torch.zeros_like(present)).tolist() == [[0.0, 0.0, 0.0]]
    before, there = models(np.random.default_rng(0), 1)[0], cohort(np.random.default_rng(1), 1)
    empty = replace(there.sending([before]), sizes=[0])
    assert np.array_equal(flat(one_round(FedAvg(), empty, before)), flat(before))
