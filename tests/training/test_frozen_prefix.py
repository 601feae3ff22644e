"""Tests of `fedmem/training/frozen_prefix.py`: a network that starts from stored outputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from fedmem.contracts.training_mode import TrainingMode
from fedmem.training.frozen_prefix import Continued, FrozenPrefix, Leaf, OutputsChangedError, Replaced, stored_outputs
from tests.training.prefix_helpers import Skip, found, head, initial, inputs, linear


def first_part(name: str = "0") -> FrozenPrefix:
    """A prefix that nobody has checked."""
    leaf = Leaf(shape=(8,), dtype=torch.float32, stored=0)
    spec = torch.utils._pytree.tree_flatten(torch.zeros(1))[1]
    return FrozenPrefix(
        replaced=(Replaced(name, spec, (leaf,)),), parts=(((8,), torch.float32),), operations=(1.0, 0.0)
    )


def test_a_prefix_that_nobody_checked_gives_other_numbers() -> None:
    # what the trials refuse would be seen: stored outputs of dropout are those of one draw
    model = nn.Sequential(nn.Dropout(), linear(), head())
    rows = inputs(4)
    rest = Continued(model, first_part())
    stored = stored_outputs(model, first_part(), rows)
    torch.manual_seed(1)
    assert not torch.allclose(rest({}, rows, stored), model(rows))


def test_gradients_and_stacks_are_those_of_the_whole() -> None:
    model = Skip()
    prefix = found(model)
    assert prefix is not None
    rest, rows, params = Continued(model, prefix), inputs(6), initial(model, TrainingMode())
    stored = stored_outputs(model, prefix, rows)
    several = {name: torch.stack([value, 2 * value]) for name, value in params.items()}
    for value in several.values():
        value.requires_grad_()
    calls = (
        torch.vmap(lambda p: rest(p, rows, stored))(several),
        torch.vmap(lambda p: torch.func.functional_call(model, p, (rows,)))(several),
    )
    torch.testing.assert_close(*calls)
    one, other = (torch.autograd.grad(logits.square().sum(), list(several.values())) for logits in calls)
    torch.testing.assert_close(one, other)


def test_a_use_of_what_is_not_stored_is_seen() -> None:
    model = Skip()
    prefix = found(model)
    assert prefix is not None
    early, late = prefix.replaced
    fewer = replace(early, leaves=tuple(replace(leaf, stored=None) for leaf in early.leaves))
    rows = inputs(3)
    stored = stored_outputs(model, prefix, rows)
    assert Continued(model, replace(prefix, replaced=(fewer, late)))({}, rows, stored).isnan().all()


class Counter(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return x, self.number

    number = 1


class Counted(nn.Module):
    """A frozen part with a constant beside its output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.counter, self.head = linear(), Counter(), head()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, number = self.counter(self.layer(x))
        z: torch.Tensor = self.head(y * number)
        return z


def test_a_constant_that_changes_is_refused() -> None:
    model = Counted()
    prefix = found(model)
    assert prefix is not None
    assert [replaced.name for replaced in prefix.replaced] == ["layer", "counter"]
    stored_outputs(model, prefix, inputs(2))
    model.counter.number = 2
    with pytest.raises(OutputsChangedError, match="counter"):
        stored_outputs(model, prefix, inputs(2))
