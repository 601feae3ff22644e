"""The fast matching objective against a plain gradient: values, slopes, and when it must not be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.attacks import _layers
from fedmem.attacks._descent import descend
from fedmem.attacks._matching import Matching, total_variation
from fedmem.attacks._problems import Problem, Solution, best_restarts, starts
from fedmem.contracts.arrays import Params
from fedmem.contracts.attack import GradientTarget
from fedmem.contracts.data import Examples
from fedmem.processes import can_fork, share_processes
from tests.lab import parameters, target_of
from tests.narrowing import instance

CLASSES, SHAPE = 10, (2, 9, 8)


class InPlace(nn.Module):
    """Writes over what its layers gave."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3), nn.Linear(4 * 7 * 6, CLASSES)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(self.act(self.first(x)).flatten(1))
        return out


class Positions(nn.Module):
    """A linear layer over several places of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 3), nn.Linear(2 * 9 * 3, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.outer(torch.tanh(self.inner(x)).flatten(1))
        return out


class Twice(nn.Module):
    """Calls one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(144, 144), nn.Linear(144, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.outer(torch.tanh(self.inner(torch.tanh(self.inner(x.flatten(1))))))
        return out


class Mixing(nn.Module):
    """Lets the images of a batch see one another."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(144, 20), nn.Linear(20, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.inner(x.flatten(1))
        out: torch.Tensor = self.outer(torch.tanh(hidden - hidden.mean(0)))
        return out


class Shifted(nn.Linear):
    """A linear layer that is none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flatten(1)) + self.weight.sum()


def tied() -> nn.Module:
    one, other = nn.Linear(144, 144), nn.Linear(144, 144)
    other.weight = one.weight
    return nn.Sequential(nn.Flatten(), one, nn.Tanh(), other, nn.Linear(144, CLASSES))


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 20), nn.Tanh(), nn.Linear(20, CLASSES))
    model[1].register_forward_hook(lambda _, __, outputs: 2 * outputs)
    return model


READ: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, CLASSES)),
    "no bias": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(144, 20, bias=False), nn.Sigmoid(), nn.Linear(20, CLASSES)
    ),
    "strides, padding, dilation": lambda: nn.Sequential(
        nn.Conv2d(2, 6, (3, 2), stride=(2, 1), padding=(1, 2)), nn.Sigmoid(),
        nn.Conv2d(6, 4, 3, dilation=2, bias=False),
        nn.Flatten(), nn.LazyLinear(CLASSES),
    ),
    "groups": lambda: nn.Sequential(
        nn.Conv2d(2, 6, 3, groups=2, padding="same"), nn.Tanh(), nn.Conv2d(6, 6, 3, groups=3), nn.Flatten(),
        nn.LazyLinear(CLASSES),
    ),
    "norm": lambda: nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=False), nn.GroupNorm(3, 6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.LazyLinear(CLASSES),
    ),
    "in place": InPlace,
    "positions": Positions,
}  # fmt: skip

NOT_READ: dict[str, Callable[[], nn.Module]] = {
    "twice": Twice,
    "tied": tied,
    "hooked": hooked,
    "one's own layer": lambda: Shifted(144, CLASSES),
    "layer norm": lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(144), nn.Linear(144, CLASSES)),
    "circular": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.LazyLinear(CLASSES)
    ),
    "mixing": Mixing,
}


def made(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
        model(torch.zeros(2, *SHAPE))
    return model


def problems(model: nn.Module, sizes: Sequence[int] = (3, 1, 2)) -> list[Problem]:
    rng = np.random.default_rng(0)
    found = []
    for index, size in enumerate(sizes):
        rows = Examples(
            inputs=rng.random((size, *SHAPE), dtype=np.float32),
            targets=rng.integers(CLASSES, size=size),
            ids=np.arange(size),
        )
        noise = rng.random((size, *SHAPE), dtype=np.float32)
        target = target_of(model, parameters(model), rows)
        found.append(Problem(index=index, target=target, inputs=noise, labels=rng.integers(CLASSES, size=size)))
    return found


def naive(problem: Problem, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Both objectives from one flat gradient."""
    model = problem.target.model
    params = {name: value.double().requires_grad_() for name, value in problem.target.params.items()}
    outputs = torch.func.functional_call(model, params, (images,))
    loss = -(outputs.log_softmax(1) * labels).sum(1).mean()
    gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    mine = torch.cat([value.flatten() for value in gradients])
    wanted = torch.cat([problem.target.gradient[name].double().flatten() for name in params])
    cosine = 1 - mine @ wanted / (mine.norm() * wanted.norm())
    return {"cosine": cosine, "euclid": (mine - wanted).square().sum() / wanted.square().sum()}


def compared(model: nn.Module, objective: str) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """The largest differences of values and of slopes in images and labels, against the naive ones; whether shared."""
    given = problems(model)
    stacked = Matching(given, torch.float64)
    images = stacked.starts.clone().requires_grad_()
    soft = (stacked.labels * 0.7 + 0.03).requires_grad_()
    values = getattr(stacked, objective)(images, soft)
    slopes = torch.autograd.grad(values.sum(), (images, soft))
    worst, apart = torch.zeros(()), torch.zeros(())
    for i, problem in enumerate(given):
        count = len(problem.labels)
        own = images[i, :count].detach().requires_grad_(), soft[i, :count].detach().requires_grad_()
        value = naive(problem, *own)[objective]
        worst = torch.maximum(worst, (values[i] - value).abs().detach())
        for slope, expected in zip(slopes, torch.autograd.grad(value, own), strict=True):
            apart = torch.maximum(apart, (slope[i, :count] - expected).abs().max() / expected.abs().max())
            assert not slope[i, count:].any()
    return worst, apart, stacked.has_shared_parameters


@pytest.mark.parametrize("objective", ["cosine", "euclid"])
@pytest.mark.parametrize("name", READ)
def test_inner_products_of_layers_give_the_naive_objective(name: str, objective: str) -> None:
    worst, apart, shared = compared(made(READ[name]), objective)
    assert shared
    assert worst < 1e-7
    assert apart < 1e-7


@pytest.mark.parametrize("name", sorted(NOT_READ.keys() - {"mixing"}))
def test_what_cannot_be_read_is_built_and_gives_the_same(name: str) -> None:
    worst, apart, shared = compared(made(NOT_READ[name]), "cosine")
    assert not shared
    assert worst < 1e-7
    assert apart < 1e-7


def test_images_that_see_one_another_do_so_within_their_problem_alone() -> None:
    given = problems(made(Mixing), (2, 2, 2))
    stacked = Matching(given, torch.float64)
    assert not stacked.has_shared_parameters
    for i, problem in enumerate(given):
        expected = naive(problem, stacked.starts[i], stacked.labels[i])["cosine"]
        torch.testing.assert_close(stacked.cosine(stacked.starts)[i], expected.detach())


@pytest.mark.parametrize(("rows", "gram"), [(1, True), (60, False)])
def test_both_ways_to_an_inner_product_are_equal_and_both_are_taken(
    rows: int, gram: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slopes, inputs, wanted = torch.rand(2, rows, 5).double(), torch.rand(2, rows, 40).double(), torch.rand(2, 5, 40)
    built = slopes.mT @ inputs
    built_too = []
    real = torch.Tensor.square

    def counted(own: torch.Tensor) -> torch.Tensor:
        built_too.append(own)
        return real(own)

    monkeypatch.setattr(torch.Tensor, "square", counted)
    dot, square = _layers.Outer(slopes=slopes, inputs=inputs).products(wanted.double())
    torch.testing.assert_close(dot, (built * wanted).sum((1, 2)))
    torch.testing.assert_close(square, (built * built).sum((1, 2)))
    assert bool(built_too) != gram


@pytest.mark.parametrize("broken", ["sign", "bias", "norm"])
def test_a_broken_layer_is_noticed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle test would see it, and so does the check before each stack: the built gradient is taken instead."""
    real = _layers._linear

    def wrong(inputs: torch.Tensor, slopes: torch.Tensor, count: int) -> dict[str, _layers.Part]:
        found = real(inputs, -slopes if broken == "sign" else slopes, count)
        if broken == "bias":
            found.pop("bias")
        if broken == "norm":
            found["weight"] = replace(
                instance(found["weight"], _layers.Outer), inputs=2 * inputs.reshape(count, -1, inputs.shape[-1])
            )
        return found

    monkeypatch.setattr(_layers, "_linear", wrong)
    model = made(READ["linear"])
    worst, _, shared = compared(model, "cosine")
    assert not shared
    assert worst < 1e-7
    monkeypatch.setattr(Matching, "_matches_plain_gradient", lambda *_: True)
    assert compared(model, "cosine")[0] > 1e-4


def test_some_of_a_stack_are_as_they_were() -> None:
    stacked = Matching(problems(made(InPlace)), torch.float64)
    part = stacked.take(torch.tensor([2, 0]))
    whole = stacked.cosine(stacked.starts)
    torch.testing.assert_close(part.cosine(part.starts), whole[[2, 0]], rtol=1e-9, atol=1e-12)
    assert part.counts == [2, 3]


def test_the_model_keeps_parameters_mode_and_hooks() -> None:
    model = made(InPlace).eval()
    before = parameters(model)
    Matching(problems(model)).cosine(Matching(problems(model)).starts)
    assert not model.training
    assert not any(part._forward_hooks for part in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert all(value.requires_grad for value in model.parameters())


# Stacks


def test_only_problems_of_the_same_parameters_share_a_stack() -> None:
    model = made(InPlace)
    given = problems(model, (1, 1, 1, 1))
    other: Params = {name: value + 1 for name, value in parameters(model).items()}
    mixed = [
        replace(one, target=replace(one.target, params=other if i % 2 else dict(one.target.params)))
        for i, one in enumerate(given)
    ]
    seen: list[list[int]] = []

    def solve(stack: Sequence[Problem]) -> list[Solution]:
        seen.append([one.index for one in stack])
        return [Solution(inputs=one.inputs, labels=one.labels, distance=0.0) for one in stack]

    assert [len(one.inputs) for one in best_restarts(mixed, solve)] == [1, 1, 1, 1]
    assert seen == [[0, 2], [1, 3]]


def test_restarts_that_belong_together_are_never_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmem.attacks._problems.STACK_VALUES", 1)
    model = made(InPlace)
    given = [replace(one, index=one.index // 2) for one in problems(model, (1, 1, 2, 2))]
    seen: list[list[int]] = []

    def solve(stack: Sequence[Problem]) -> list[Solution]:
        seen.append([one.index for one in stack])
        return [Solution(inputs=one.inputs, labels=one.labels, distance=float(i)) for i, one in enumerate(stack)]

    found = best_restarts(given, solve, together=True)
    assert seen == [[1, 1], [0, 0]]
    assert [one.distance for one in found] == [0.0, 0.0]
    seen.clear()
    best_restarts(given, solve)
    assert seen == [[1], [1], [0], [0]]


@pytest.mark.skipif(not can_fork(), reason="needs forks")
def test_stacks_are_shared_out_with_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmem.attacks._problems.STACK_VALUES", 1)
    targets: list[GradientTarget] = [one.target for one in problems(made(InPlace), (1, 2, 1))]
    here: list[int] = []

    def solve(stack: Sequence[Problem]) -> list[Solution]:
        here.append(len(stack))
        return descend(stack, Matching(stack), Matching.cosine, smooth, steps=5, lr=0.1, signed=True)

    def smooth(matching: Matching, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return total_variation(images, matching.weights, matching.axes)

    given = starts(targets, [np.random.default_rng(i) for i in range(3)], 1)
    alone = best_restarts(given, solve)
    assert here == [1, 1, 1]
    with share_processes(2):
        together = best_restarts(given, solve)
    assert here == [1, 1, 1], "nothing more was solved in this process"
    assert all(np.array_equal(one.inputs, other.inputs) for one, other in zip(alone, together, strict=True))
    assert [one.distance for one in alone] == [one.distance for one in together]


def test_a_model_that_diverged_is_read_like_any_other() -> None:
    given = problems(made(InPlace))
    broken = {name: torch.full_like(value, torch.nan) for name, value in given[0].target.params.items()}
    stacked = Matching([replace(one, target=replace(one.target, params=broken)) for one in given])
    assert stacked.cosine(stacked.starts).isnan().all()
    assert total_variation(stacked.starts, stacked.weights, stacked.axes)[0].isfinite().all()
