"""Tests of `fedmem/training/precision.py`: bf16 and tf32 are of local steps alone, and fp32 is float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import Params
from fedmem.contracts.client import PerExample
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import TrainedBank
from fedmem.errors import RunError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.models.char_rnn import CharRnn
from fedmem.models.mlp import MLP
from fedmem.models.small_cnn import SmallCNN
from fedmem.training import tracing
from fedmem.training.executor import Settings
from fedmem.training.ghost_clipping import Layers, batch_outputs
from fedmem.training.one_by_one import OneByOne
from fedmem.training.per_example import ClippedSums, clipped_sums
from fedmem.training.precision import BF16_ROUNDING, forward_pass, full_precision, products_of_steps
from tests.tiny import tiny
from tests.training.precision_helpers import distance

DP = {"kind": "dp_sgd", "lr": 0.1, "clip": 0.5, "noise_multiplier": 0.5, "batch_size": 8}
SHORT: dict[str, Any] = {"runs": 2, "rounds": 1, "observe": {"every": 1, "levels": ["local", "global"]}}


def trained(precision: str, executor: str = "stacked", **changes: Any) -> TrainedBank:
    speed = {"executor": executor, "precision": precision, "workers": 1}
    scenario = tiny(**SHORT, **changes, speed=speed)
    return simulate(scenario, build(scenario))


@pytest.mark.parametrize("client", [tiny().dump()["client"], DP])
def test_bf16_differs_by_rounding_alone(client: dict[str, Any]) -> None:
    """A stack is what clients are one by one, and both are near to full precision, but are not it."""
    full, stack, single = (
        trained(precision, executor, client=client)
        for precision, executor in (("fp32", "stacked"), ("bf16", "stacked"), ("bf16", "one_by_one"))
    )
    assert 1e-6 < distance(stack, full) < 4 * BF16_ROUNDING
    assert distance(stack, single) < 4 * BF16_ROUNDING
    assert stack.untraced == {}, "steps are traced in bf16 as well"
    assert {value.dtype for params in stack.params for value in params.values()} == {torch.float32}
    for evidence, other in zip(stack.bank.evidence, full.bank.evidence, strict=True):
        for name, value in vars(evidence).items():
            if isinstance(value, np.ndarray):
                assert value.dtype == getattr(other, name).dtype, name


def test_shards_of_bf16_are_the_whole_to_the_last_bit() -> None:
    scenario = tiny(**SHORT, speed={"precision": "bf16"})
    federation = build(scenario)
    whole = simulate(scenario, federation)
    parts = [simulate(scenario, federation, runs=[run]) for run in range(2)]
    for params, part in zip(whole.params, parts, strict=True):
        assert all(torch.equal(value, part.params[0][name]) for name, value in params.items())


class Types(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes whether bfloat16 occurs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.met: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outcome = func(*args, **(kwargs or {}))
        for value in outcome if isinstance(outcome, (tuple, list)) else (outcome,):
            self.met |= {value.dtype} if isinstance(value, Tensor) else set()
        return outcome


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_models_are_looked_at_in_full_precision(precision: str) -> None:
    store = data(6)
    executor = OneByOne(mlp(), Sgd(), store, Settings(precision=precision))
    params = {name: value.detach() for name, value in mlp().named_parameters()}
    with Types() as types:
        executor.logits([params], store.inputs)
    assert torch.bfloat16 not in types.met
    with Types() as types:
        executor._trained_logits(params, torch.from_numpy(store.inputs))
    assert (torch.bfloat16 in types.met) == (precision == "bf16")


def data(count: int, features: tuple[int, ...] = (5,)) -> Examples:
    inputs = np.random.default_rng(1).normal(size=(count, *features)).astype(np.float32)
    return Examples(inputs=inputs, targets=np.arange(count) % 3, ids=np.arange(count))


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return MLP(hidden=(16,)).build((5,), 3)


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return SmallCNN(channels=(4, 4)).build((1, 8, 8), 3)


def all_sums(model: nn.Module, inputs: Tensor, targets: Tensor, clip: float, layers: bool) -> Iterator[Params]:
    """The clipped sums of one example in bf16: of one client, and of a stack with and without layers."""
    params = {name: value.detach() for name, value in model.named_parameters()}
    sums = ClippedSums(model, PerExample(clip=clip, noise_multiplier=1.0, expected=1.0), "bf16")
    sums.verify(inputs, targets)
    yield sums(params, inputs, targets)[2]
    sums.one_by_one = True
    yield sums(params, inputs, targets)[2]
    given = {name: value[None] for name, value in params.items()}

    def outputs(own: Params, batch: Tensor) -> Tensor:
        with forward_pass("bf16", "cpu"):
            return batch_outputs(model, own, batch).float()

    found = Layers.of(model, inputs)
    assert (found is not None) == layers
    if found is not None:
        found.precision = "bf16"
    for using in {None, found}:
        total = clipped_sums(outputs, using, given, inputs[None], targets[None], torch.ones(1, len(inputs)), clip)[2]
        yield {name: value[0] for name, value in total.items()}


@pytest.mark.parametrize(("make", "features", "layers"), [(mlp, (5,), True), (cnn, (1, 8, 8), False)])
def test_clipped_norms_stay_below_the_clip_in_bf16(make: Any, features: tuple[int, ...], layers: bool) -> None:
    """The sum over one example is its clipped gradient; a norm taken in bf16 would be off by up to 1/256."""
    model, store, clip = make(), data(20, features), 0.01
    for row in range(20):
        inputs, targets = torch.from_numpy(store.inputs[row : row + 1]), torch.from_numpy(store.targets[row : row + 1])
        lengths = [
            float(torch.cat([value.double().flatten() for value in total.values()]).norm())
            for total in all_sums(model, inputs, targets, clip, layers)
        ]
        assert len(lengths) >= 3
        # 1e-6 is added to norms, and factors are in float32
        assert max(lengths) <= clip * (1 + 1e-6)
        assert min(lengths) > 0.99 * clip


def test_texts_are_clipped_one_by_one_in_bf16() -> None:
    torch.manual_seed(0)
    model = CharRnn(embedding=6, hidden=8).build((9,), 11)
    sums = ClippedSums(model, PerExample(clip=0.01, noise_multiplier=1.0, expected=1.0), "bf16")
    inputs = torch.randint(11, (1, 9))
    params = {name: value.detach() for name, value in model.named_parameters()}
    _, shares, total = sums(params, inputs, inputs)
    length = float(torch.cat([value.double().flatten() for value in total.values()]).norm())
    assert length == pytest.approx(0.01, rel=1e-3)
    assert float(shares) == 1
    assert length <= 0.01 * (1 + 1e-6)


class Picky(nn.Module):
    """Asks for float32 between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = self.first(rows)
        assert hidden.dtype == torch.float32, "float32 is wanted here"
        outcome: Tensor = self.last(hidden)
        return outcome


def test_a_network_that_cannot_do_bf16_is_refused() -> None:
    OneByOne(Picky(), Sgd(), data(4))
    with pytest.raises(RunError, match=r"speed.precision is bf16, but .*float32 is wanted here.*use precision: fp32"):
        OneByOne(Picky(), Sgd(), data(4), Settings(precision="bf16"))


def state() -> tuple[object, ...]:
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_fp32_forbids_tf32_and_puts_it_back() -> None:
    before = state()
    assert before[1], "torch lets cuDNN use TF32 by itself"
    with full_precision():
        assert state() == ("highest", False, False)
        with products_of_steps("fp32"), products_of_steps("bf16"):
            assert state() == ("highest", False, False)
        with products_of_steps("tf32"):
            assert state() == ("high", True, True)
        assert state() == ("highest", False, False)
    assert state() == before
    with pytest.raises(ZeroDivisionError), full_precision():
        raise ZeroDivisionError
    assert state() == before


def test_tf32_is_allowed_in_local_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, and not where models are looked at: by what torch is told while both are at work."""
    met: dict[str, set[object]] = {"steps": set(), "looks": set()}
    in_step, in_look = OneByOne._steps, OneByOne._watched_logits

    def steps(self: OneByOne, *arguments: Any) -> Any:
        met["steps"].add(state())
        return in_step(self, *arguments)

    def looks(self: OneByOne, *arguments: Any) -> Any:
        met["looks"].add(state())
        return in_look(self, *arguments)

    monkeypatch.setattr(OneByOne, "_steps", steps)
    monkeypatch.setattr(OneByOne, "_watched_logits", looks)
    monkeypatch.setattr("fedmem.execution.executors.device_of", lambda *_: "cpu")
    scenario = tiny(**SHORT, speed={"precision": "tf32", "device": "cuda", "executor": "one_by_one"})
    simulate(scenario, build(scenario))
    assert met == {"steps": {("high", True, True)}, "looks": {("highest", False, False)}}


def test_the_rounding_of_a_trace_follows_the_precision() -> None:
    value = torch.ones(3)
    assert not tracing._close(value, value * 1.003)
    assert tracing._close(value, value * 1.003, BF16_ROUNDING)
    assert not tracing._close(value, value * 1.03, BF16_ROUNDING)
