"""Watchers whose model is not the one that an app trains, and models whose examples interact."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fedmem import Known, Observed, Watch, WatchLeakage
from fedmem.apps.attack import target_of
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.engines._flower import in_process
from fedmem.errors import RunError, TargetError
from fedmem.federation.build import check
from fedmem.training.model_checks import mismatch
from tests.observation.observed_helpers import Net, app_grid, data_of, initial
from tests.tiny import tiny


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def half_frozen() -> nn.Module:
    net = Net()
    next(net.parameters()).requires_grad_(False)
    return net


def test_an_attack_on_a_frozen_model_needs_what_is_trained() -> None:
    net = half_frozen()
    params = {name: value.detach() for name, value in net.named_parameters()}
    first, *others = params
    after = {name: value + 1 for name, value in params.items()} | {first: params[first]}
    known = Known(input_shape=(6,), num_classes=3, num_images=2, lr=0.1)
    assert list(target_of(params, after, net, known).gradient) == others
    alone = target_of({name: params[name] for name in others}, {name: after[name] for name in others}, net, known)
    assert list(alone.params) == others
    with pytest.raises(TargetError, match="all parameters of the model are frozen"):
        target_of(params, after, net.requires_grad_(False), known)


def leakage(model: nn.Module, **changes: Any) -> WatchLeakage:
    known = Known(input_shape=(6,), num_classes=3, num_images=2, lr=0.1)
    attack = InvertingGradients(steps=2)
    return WatchLeakage(
        model=model, attack=attack, known=known, examples={"mine": np.zeros((2, 6))}, rounds=[2], **changes
    )


class WithBatchNorm(nn.Module):
    """`Net` with a layer of running statistics behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.norm = Net(), nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.net(x))
        return out


def watch(model: nn.Module, **changes: Any) -> Watch:
    return Watch(model=model, examples={"mine": data_of(0)}, **changes)


class Rounds:
    """A watcher that notes which rounds were trained."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []

    def observes_round(self, round_number: int) -> bool:
        return True

    def see(self, transitions: Any) -> None:
        self.seen += sorted({(one.round, one.level) for one in transitions})


def started(watcher: Any, arrays: ArrayRecord | None = None, change: Any = list) -> Any:
    """One app of two rounds with this watcher; `change` alters replies."""
    return Observed(FedAvg(fraction_evaluate=0.0), watcher).start(
        grid=app_grid(change), initial_arrays=arrays or initial(), num_rounds=2
    )


WRONG = {
    "architecture": (nn.Linear(6, 3), None, "do not agree on parameter"),
    "shape": (nn.Sequential(), None, "do not agree on parameter"),
    "batch norm": (
        WithBatchNorm(),
        ArrayRecord({name: value.detach() for name, value in WithBatchNorm().named_parameters()}),
        "lack the running statistics of the model, such as 'norm.running_mean'",
    ),
}


@pytest.mark.parametrize("make", [watch, leakage])
@pytest.mark.parametrize("case", WRONG)
def test_model_that_does_not_fit_the_app_is_an_error_early(make: Any, case: str) -> None:
    model, arrays, message = WRONG[case]
    trained: list[int] = []

    def note(replies: list[Message]) -> list[Message]:
        trained.append(1)
        return replies

    with pytest.raises(ValueError, match=message):
        started(make(model), arrays, note)
    assert not trained


@pytest.mark.parametrize("make", [watch, leakage])
def test_arrays_of_another_shape_are_named(make: Any) -> None:
    name, value = next(iter(initial().items()))
    tensors = {key: torch.from_numpy(np.array(one.numpy())) for key, one in initial().items()}
    arrays = ArrayRecord(tensors | {name: torch.zeros(value.shape[0] + 1, *value.shape[1:])})
    with pytest.raises(ValueError, match=rf"parameter '{name}' has shape \({value.shape[0] + 1}, "):
        started(make(Net()), arrays)


@pytest.mark.parametrize("make", [watch, leakage])
def test_arrays_of_an_adapter_alone_are_an_error_before_round_1(make: Any) -> None:
    kept = dict(list(initial().items())[1:])
    with pytest.raises(ValueError, match=r"lack 1 of the .* parameters of the model"):
        started(make(Net()), ArrayRecord({key: torch.from_numpy(np.array(one.numpy())) for key, one in kept.items()}))


def without_first(replies: list[Message]) -> list[Message]:
    """What clients of an adapter send: all but the first parameter."""
    for reply in replies:
        arrays = reply.content["arrays"]
        assert isinstance(arrays, ArrayRecord)
        names = list(arrays)
        reply.content["arrays"] = ArrayRecord({n: torch.from_numpy(np.array(arrays[n].numpy())) for n in names[1:]})
    return replies


class Padding(FedAvg):
    """Aggregates what came, and takes the other parameters from the model before."""

    def configure_train(self, server_round: int, arrays: ArrayRecord, *others: Any) -> Any:
        self.before = arrays
        return super().configure_train(server_round, arrays, *others)

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        arrays, metrics = super().aggregate_train(server_round, replies)
        assert arrays is not None
        return ArrayRecord({name: arrays.get(name, value) for name, value in self.before.items()}), metrics


@pytest.mark.parametrize("make", [watch, leakage])
def test_with_warn_the_training_goes_on_and_the_watching_ends(make: Any) -> None:
    def trained(watcher: Any, arrays: ArrayRecord) -> Any:
        strategy = Observed(Padding(fraction_evaluate=0.0), watcher, *others)
        return strategy.start(grid=app_grid(without_first), initial_arrays=arrays, num_rounds=2)

    others: list[Any] = []
    with pytest.raises(RunError, match="is missing, unknown or of another shape"):
        trained(make(Net()), initial())
    with pytest.warns(RuntimeWarning, match="stops watching, and training goes on: RunError") as caught:
        result = trained(make(Net(), on_error="warn"), initial())
    assert len([one for one in caught if one.category is RuntimeWarning]) == 1, "one warning, not one a round"
    unwatched = Padding(fraction_evaluate=0.0).start(
        grid=app_grid(without_first), initial_arrays=initial(), num_rounds=2
    )
    for name, array in unwatched.arrays.items():
        np.testing.assert_allclose(result.arrays[name].numpy(), array.numpy(), rtol=1e-4, atol=1e-6)


def test_wrong_architecture_with_warn_is_a_warning_early() -> None:
    watcher = watch(nn.Linear(6, 3), on_error="warn")
    with pytest.warns(RuntimeWarning, match="round 0: Watch stops watching"):
        started(watcher)
    assert watcher.frame().empty


def test_other_watchers_go_on() -> None:
    rounds = Rounds()
    observed = Observed(FedAvg(fraction_evaluate=0.0), watch(nn.Linear(6, 3), on_error="warn"), rounds)
    with pytest.warns(RuntimeWarning, match="stops watching"):
        observed.start(grid=app_grid(), initial_arrays=initial(), num_rounds=2)
    assert rounds.seen[-1] == (2, "global")


@pytest.mark.parametrize("make", [watch, leakage])
def test_a_model_that_fits_gives_no_warning(make: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watcher = make(Net(), on_error="warn")
        started(watcher)
    assert not watcher.frame().empty
    with pytest.raises(ValueError, match="on_error must be 'raise' or 'warn', got 'ignore'"):
        make(Net(), on_error="ignore")


def test_frozen_parameters_may_be_sent_or_left_out() -> None:
    net = half_frozen()
    params = dict(net.named_parameters())
    first, *others = params
    assert mismatch(net, params) is None
    assert mismatch(net, {name: params[name] for name in others}) is None
    assert "lack 1 of the" in str(mismatch(net, {first: params[first]} | {name: params[name] for name in others[1:]}))
    assert "has shape (1,)" in str(mismatch(net, params | {first: torch.zeros(1)}))


# --- examples of a batch that interact ------------------------------------------------------------------------------


class Mixing(nn.Module):
    """The output for an example follows from the other examples of the batch."""

    def __init__(self, size: int, num_classes: int, way: str) -> None:
        super().__init__()
        self.flat, self.first, self.last = nn.Flatten(), nn.Linear(size, 8), nn.Linear(8, num_classes)
        self.way = way
        self.norm = nn.BatchNorm1d(8, track_running_stats=False) if way == "norm" else nn.Identity()
        if way == "hidden":
            nn.init.zeros_(self.last.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.first(self.flat(x)))
        if self.way in {"sum", "hidden"}:
            h = h + 10 * (h.sum(0) - h)
        if self.way == "mean":
            h = h - h.mean(0)
        if self.way == "order":
            h = h * torch.arange(len(h))[:, None]
        out: torch.Tensor = self.last(torch.relu(h))
        return out


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A network that mixes the examples of a batch in a way."""

    stackable: ClassVar[bool] = True
    way: str = "none"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        return Mixing(int(np.prod(input_shape)), num_classes, self.way)


@pytest.mark.parametrize("way", ["sum", "hidden", "mean", "norm", "order"])
def test_a_model_whose_examples_interact_is_refused(way: str) -> None:
    mixed = {"kind": "tests.training.test_model_checks:Mixed", "way": way}
    found = [problem for problem in check(tiny(model=mixed)) if problem.path.startswith("model")]
    assert len(found) == 1
    assert "example" in found[0].message
    assert "GroupNorm or LayerNorm" in found[0].message


def test_model_with_independent_examples_is_accepted() -> None:
    assert check(tiny(model={"kind": "tests.training.test_model_checks:Mixed"})) == []
