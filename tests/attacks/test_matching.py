"""The fast matching objective against a plain gradient: values, slopes, and when it must not be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from fedmem.attacks._matching import Matching, total_variation
from tests.attacks.matching_helpers import CLASSES, InPlace, compared, made, naive, problems
from tests.lab import parameters


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


@pytest.mark.parametrize("name", sorted(NOT_READ.keys() - {"mixing"}))
def test_layers_without_reader_are_built_with_equal_results(name: str) -> None:
    worst, apart, shared = compared(made(NOT_READ[name]), "cosine")
    assert not shared
    assert worst < 1e-7
    assert apart < 1e-7


def test_images_that_interact_do_so_only_within_their_problem() -> None:
    given = problems(made(Mixing), (2, 2, 2))
    stacked = Matching(given, torch.float64)
    assert not stacked.has_shared_parameters
    for i, problem in enumerate(given):
        expected = naive(problem, stacked.starts[i], stacked.labels[i])["cosine"]
        torch.testing.assert_close(stacked.cosine(stacked.starts)[i], expected.detach())


def test_subset_of_a_stack_has_the_values_of_the_stack() -> None:
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


def test_a_model_that_diverged_is_read_like_any_other() -> None:
    given = problems(made(InPlace))
    broken = {name: torch.full_like(value, torch.nan) for name, value in given[0].target.params.items()}
    stacked = Matching([replace(one, target=replace(one.target, params=broken)) for one in given])
    assert stacked.cosine(stacked.starts).isnan().all()
    assert total_variation(stacked.starts, stacked.weights, stacked.axes)[0].isfinite().all()
