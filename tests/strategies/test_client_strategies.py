"""FedNova, SCAFFOLD, FedDyn: by hand, on problems with a known minimum, and through the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.clients.sgd import Sgd
from fedmem.errors import ScenarioError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from strategies._rule import Arrays, Round
from strategies.fedavg import FedAvg
from strategies.feddyn import FedDyn
from strategies.fednova import FedNova
from strategies.scaffold import Scaffold
from tests.tiny import tiny

# --- quadratics: client k has the loss a_k (w - b_k)^2 / 2 ------------------------------------------------------------

CURVATURE = np.array([0.5, 1.0, 3.0, 2.0])
CENTRE = np.array([-2.0, 1.0, 4.0, 0.0])
STEPS = np.array([9, 2, 5, 3])
MINIMUM = float((CURVATURE * CENTRE).sum() / CURVATURE.sum())
"""Of the mean of their losses."""


def trained(
    strategy: Any,
    rounds: int,
    lr: float = 0.05,
    who: Callable[[int], Sequence[int]] = lambda round_number: range(4),
    steps: Any = STEPS,
    sizes: Sequence[float] = (1, 1, 1, 1),
) -> tuple[float, Arrays]:
    """The real `sgd` client on these losses, and the rule, in float64."""
    client = Sgd(lr=lr)
    model = {"w": torch.zeros((1, 1), dtype=torch.float64)}
    state = strategy.state(model, 4)
    for number in range(1, rounds + 1):
        cohort = list(who(number))
        clients = torch.tensor([cohort])
        offers, sent, rates = strategy.payload(state, clients), [], []
        for place, k in enumerate(cohort):
            before = {"w": model["w"][0]}
            offer = {name: value[0, place] for name, value in offers.items()} | {"round": torch.tensor(float(number))}
            found = client.init(before, offer, {})
            for _ in range(int(steps[k])):
                found = client.step(found, lambda params, k=k: {"w": CURVATURE[k] * (params["w"] - CENTRE[k])})  # type: ignore[misc]
            outcome = client.final(found, before)
            sent.append(outcome.sent["w"])
            rates.append(float(outcome.report.get("lr", lr)))
        present = torch.ones((1, len(cohort)), dtype=torch.bool)
        told = {
            "steps": torch.tensor([[float(steps[k]) for k in cohort]], dtype=torch.float64),
            "lr": torch.tensor([rates], dtype=torch.float64),
        }
        weights = torch.tensor([[float(sizes[k]) for k in cohort]], dtype=torch.float64)
        round_number = Round(
            number=number,
            before=model,
            sent={"w": torch.stack(sent)[None]},
            weights=weights,
            present=present,
            clients=clients,
            report=told,
        )
        model, state = strategy.rule(state, round_number)
    return float(model["w"]), state


def two_of_four(round_number: int) -> Sequence[int]:
    return sorted(np.random.default_rng(round_number).permutation(4)[:2].tolist())


@pytest.mark.parametrize("who", [lambda round_number: range(4), two_of_four], ids=["everyone", "two of four"])
@pytest.mark.parametrize("strategy", [Scaffold(), FedDyn(alpha=1.0)], ids=lambda s: type(s).__name__)
def test_corrected_clients_find_the_minimum_of_the_mean_loss(strategy: Any, who: Any) -> None:
    """Whatever their numbers of steps, where averaging finds another point, or none."""
    # a client of FedDyn has to come near the minimum of its own loss
    steps = STEPS if isinstance(strategy, Scaffold) else [25] * 4
    found, state = trained(strategy, 120, lr=0.1, who=who, steps=steps)
    assert found == pytest.approx(MINIMUM, abs=1e-3)
    own = CURVATURE * (MINIMUM - CENTRE)
    np.testing.assert_allclose(state["own:w"][0, :, 0], own, atol=0.02)
    averaged, _ = trained(FedAvg(), 30, lr=0.1, who=who, steps=steps)
    assert abs(averaged - MINIMUM) > 0.1


class Backwards(Scaffold):
    """A SCAFFOLD whose correction has the wrong sign."""

    def payload(self, state: Arrays, clients: torch.Tensor) -> Arrays:
        return {name: -value for name, value in super().payload(state, clients).items()}


def test_with_the_wrong_sign_they_would_not() -> None:
    found, _ = trained(Backwards(), 60)
    assert not abs(found - MINIMUM) < 0.1


@pytest.mark.parametrize("kind", [Scaffold, FedDyn])
def test_what_is_kept_of_all_is_the_mean_of_what_is_kept_of_each(kind: Any) -> None:
    _, state = trained(kind(), 5, who=two_of_four)
    assert state["own:w"].shape == (1, 4, 1)
    assert float(state["own:w"].mean(dim=1)) == pytest.approx(float(state["all:w"]), abs=1e-12)
    assert float(state["all:w"].abs()) > 0.01


@pytest.mark.parametrize("strategy", [Scaffold(), FedDyn(alpha=0.5)], ids=["scaffold", "feddyn"])
def test_it_stays_the_mean_where_clients_are_met_one_after_another(strategy: Any) -> None:
    """In an app of one's own nobody says beforehand how many clients there are, so the tables grow."""
    model = {"w": torch.zeros((1, 2), dtype=torch.float64)}
    state = strategy.state(model, 0)
    for number, cohort in enumerate(([0, 1], [2, 3], [4, 0]), start=1):
        present = torch.ones((1, 2), dtype=torch.bool)
        sent = {"w": model["w"][:, None] + torch.tensor([[[1.0, -2.0], [0.5, number]]], dtype=torch.float64)}
        model, state = strategy.rule(
            state,
            Round(
                number=number,
                before=model,
                sent=sent,
                weights=present.double(),
                present=present,
                clients=torch.tensor([cohort]),
                report={"steps": 2 * present.double(), "lr": 0.1 * present.double()},
            ),
        )
        assert state["own:w"].shape[1] == min(2 * number, 5)
        torch.testing.assert_close(state["all:w"], state["own:w"].mean(dim=1))


def test_scaffold_by_hand() -> None:
    """Two rounds of two clients with two steps each, written out."""
    lr, steps = 0.05, [2, 2, 0, 0]
    w, c, own = 0.0, 0.0, np.zeros(4)
    for _ in range(2):
        ends = []
        for k in (0, 1):
            y = w
            for _ in range(2):
                y -= lr * (CURVATURE[k] * (y - CENTRE[k]) - own[k] + c)
            ends.append(y)
        new = [own[k] - c + (w - ends[k]) / (2 * lr) for k in (0, 1)]
        c += sum(new[k] - own[k] for k in (0, 1)) / 4
        own[:2] = new
        w = sum(ends) / 2
    found, state = trained(Scaffold(), 2, who=lambda round_number: [0, 1], steps=steps)
    assert found == pytest.approx(w, abs=1e-12)
    np.testing.assert_allclose(state["own:w"][0, :, 0], own, atol=1e-12)
    assert float(state["all:w"]) == pytest.approx(c, abs=1e-12)


def test_feddyn_by_hand() -> None:
    lr, alpha = 0.05, 0.7
    w, h, own = 0.0, 0.0, np.zeros(4)
    for _ in range(2):
        ends = []
        for k in (0, 1):
            y = w
            for _ in range(2):
                y -= lr * (CURVATURE[k] * (y - CENTRE[k]) - own[k] + alpha * (y - w))
            ends.append(y)
        for k in (0, 1):
            own[k] -= alpha * (ends[k] - w)
        h -= alpha * sum(end - w for end in ends) / 4
        w = sum(ends) / 2 - h / alpha
    found, state = trained(FedDyn(alpha=alpha), 2, who=lambda round_number: [0, 1], steps=[2, 2, 0, 0])
    assert found == pytest.approx(w, abs=1e-12)
    np.testing.assert_allclose(state["own:w"][0, :, 0], own, atol=1e-12)


def test_the_first_round_of_scaffold_is_plain_averaging() -> None:
    equal = FedAvg(weighting="uniform")
    assert trained(Scaffold(), 1)[0] == pytest.approx(trained(equal, 1)[0], abs=1e-15)
    assert trained(Scaffold(), 2)[0] != pytest.approx(trained(equal, 2)[0], abs=1e-3)


def test_a_client_without_steps_keeps_its_control_variate_and_moves_nothing() -> None:
    with_it = trained(Scaffold(), 3, steps=[2, 3, 0, 4])
    without = trained(Scaffold(), 3, steps=[2, 3, 9, 4], who=lambda round_number: [0, 1, 3])
    assert with_it[0] == without[0]
    assert all(torch.equal(value, without[1][name]) for name, value in with_it[1].items())


# --- FedNova ----------------------------------------------------------------------------------------------------------


def test_fednova_by_hand_and_equal_steps_are_averaging() -> None:
    """Two clients: p = 1/4, 3/4, steps 9 and 2, so tau = 15/4."""
    sizes, pair = (1, 3, 0, 0), (lambda round_number: [0, 1])
    ends = [CENTRE[k] * (1 - (1 - 0.05 * CURVATURE[k]) ** int(STEPS[k])) for k in (0, 1)]
    expected = 3.75 * (0.25 * ends[0] / 9 + 0.75 * ends[1] / 2)
    assert trained(FedNova(), 1, sizes=sizes, who=pair)[0] == pytest.approx(expected, abs=1e-12)
    same = {"sizes": sizes, "who": pair, "steps": [5] * 4}
    assert trained(FedNova(), 6, **same)[0] == pytest.approx(  # type: ignore[arg-type]
        trained(FedAvg(), 6, **same)[0],  # type: ignore[arg-type]
        abs=1e-12,
    )


def test_fednova_is_consistent_where_averaging_is_not() -> None:
    """Small steps, different numbers of them: the minimum of the mean loss weighted by sizes."""
    sizes = (3, 1, 1, 2)
    weights = np.array(sizes) * CURVATURE
    minimum = float((weights * CENTRE).sum() / weights.sum())
    settings: dict[str, Any] = {"rounds": 300, "lr": 2e-3, "sizes": sizes, "steps": [2, 20, 8, 4]}
    assert trained(FedNova(), **settings)[0] == pytest.approx(minimum, abs=0.03)
    assert abs(trained(FedAvg(), **settings)[0] - minimum) > 0.2


def test_with_momentum_the_length_is_the_sum_of_the_weights_of_all_gradients() -> None:
    """A gradient that is always 1: the update of t steps is -lr a, with the a that the rule divides by."""
    rho, lr, steps = 0.8, 0.1, 6
    client = Sgd(lr=lr, momentum=rho)
    state = client.init({"w": torch.zeros(1, dtype=torch.float64)}, {}, {})
    for _ in range(steps):
        state = client.step(state, lambda params: {"w": torch.ones(1, dtype=torch.float64)})
    there = torch.ones((1, 2), dtype=torch.bool)
    sent = torch.stack([state["params"]["w"], torch.full((1,), -lr, dtype=torch.float64)])[None]
    round_number = Round(
        number=1,
        before={"w": torch.zeros((1, 1), dtype=torch.float64)},
        sent={"w": sent},
        weights=there.double(),
        present=there,
        clients=torch.arange(2)[None],
        report={"steps": torch.tensor([[float(steps), 1.0]], dtype=torch.float64)},
    )
    after, _ = FedNova(client_momentum=rho).rule({}, round_number)
    # both have gradient 1 per unit of length, so the mean goes as far as the mean length
    assert float(after["w"]) == pytest.approx(float(sent.mean()), abs=1e-12)
    wrong, _ = FedNova().rule({}, round_number)
    assert abs(float(wrong["w"]) - float(sent.mean())) > 0.01


# --- in a federation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fednova", "scaffold", "feddyn"])
def test_with_and_without_messages_stacked_and_one_by_one(kind: str) -> None:
    """Clients of different sizes and a decaying learning rate, some of them away."""
    changes: dict[str, Any] = {
        "strategy": {"kind": kind},
        "partition": {"kind": "quantity_skew"},
        "runs": 2,
        "rounds": 3,
        "client": {"kind": "sgd", "lr": 0.2, "decay": 0.8, "batch_size": 8},
    }
    found = {}
    for executor in ("one_by_one", "stacked"):
        for server in ("rule", "messages"):
            scenario = tiny(**changes, speed={"executor": executor, "server": server})
            found[executor, server] = simulate(scenario, build(scenario)).params
        for one, other in zip(found[executor, "rule"], found[executor, "messages"], strict=True):
            assert all(torch.equal(value, other[name]) for name, value in one.items())
    for one, other in zip(found["one_by_one", "rule"], found["stacked", "rule"], strict=True):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)
    averaging = tiny(**{**changes, "strategy": {"kind": "fedavg"}}, speed={"executor": "stacked"})
    plain = simulate(averaging, build(averaging)).params[0]
    assert not all(torch.allclose(v, plain[n], atol=1e-3) for n, v in found["stacked", "rule"][0].items())


@pytest.mark.parametrize(("kind", "fields"), [("fednova", {}), ("scaffold", {}), ("fednova", {"client_momentum": 0.5})])
def test_a_client_with_another_momentum_is_refused(kind: str, fields: dict[str, Any]) -> None:
    momentum = fields.get("client_momentum", 0.0)
    with pytest.raises(
        ScenarioError, match=rf"client.momentum: strategy {kind} .* reckons with momentum: {momentum:g}"
    ):
        tiny(strategy={"kind": kind, **fields}, client={"kind": "sgd", "momentum": 0.9})
    tiny(strategy={"kind": kind, **fields}, client={"kind": "sgd", "momentum": momentum})


def test_other_clients_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"does not understand .*scaffold"):
        tiny(strategy={"kind": "scaffold"}, client={"kind": "tests.toys:Deaf"})


def test_a_client_that_tells_no_steps_is_an_error() -> None:
    there = torch.ones((1, 1), dtype=torch.bool)
    w = torch.zeros((1, 1))
    silent = Round(
        number=1, before={"w": w}, sent={"w": w[None]}, weights=there.double(), present=there, clients=there.long()
    )
    for strategy in (FedNova(), Scaffold()):
        with pytest.raises(ValueError, match="has to know the steps of every client"):
            strategy.rule(strategy.state({"w": w}, 2), silent)
