"""Tests of `fedmem/training/data_flow.py`: a dependence is seen where gradients and values hide it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fedmem.training.data_flow import DataFlow


def in_place(x: Tensor) -> Tensor:
    y = torch.zeros(3)
    y[1:] = x[:2]
    return y


def of_a_view(x: Tensor) -> Tensor:
    y = torch.zeros(3)
    y[:1].copy_(x[:1])
    return y


DEPENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "detached": lambda x: x.detach() + 1,
    "argmax": lambda x: x.argmax(),
    "hidden by a threshold": lambda x: torch.relu(x - 1e6),
    "no change": lambda x: 0 * x,
    "the view alone": lambda x: x[1:].view(1, 2),
    "written in place": in_place,
    "written through a view": of_a_view,
    "an argument out": lambda x: torch.add(x, 1, out=torch.empty(3)),
    "a branch": lambda x: torch.ones(2) if bool(x.sum() > 0) else torch.zeros(2),
    "a number": lambda x: torch.full((2,), x[0].item()),
    "a list": lambda x: torch.tensor(x.tolist()),
    "an array": lambda x: torch.from_numpy(x.numpy() + 1),
    "rows that are chosen": lambda x: torch.arange(3)[x > 0],
}


@pytest.mark.parametrize("function", DEPENDS.values(), ids=DEPENDS)
def test_what_is_computed_from_a_marked_tensor(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor([1.0, 2.0, 3.0])
    for source, expected in ((x, True), (torch.ones(3), False)):
        with DataFlow([source]) as flow:
            output = function(x)
        assert flow.reaches([output]) is expected


def test_a_shape_is_no_dependence() -> None:
    x = torch.ones(3)
    with DataFlow([x]) as flow:
        outputs = [torch.zeros_like(x), x.new_ones(2), torch.arange(len(x)), 1, None]
    assert not flow.reaches(outputs)


def test_storage_that_is_freed_marks_no_other() -> None:
    x = torch.ones(1000)
    with DataFlow([x]) as flow:
        for _ in range(50):
            _ = x + 1
            assert not flow.reaches([torch.zeros(1000)])
