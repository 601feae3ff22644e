"""Tests of `fedmem/attacks/_problems.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedmem.attacks._descent import descend
from fedmem.attacks._matching import Matching, total_variation
from fedmem.attacks._problems import Problem, Solution, best_restarts, starts
from fedmem.contracts.arrays import Params
from fedmem.contracts.attack import GradientTarget
from fedmem.processes import can_fork, share_processes
from tests.attacks.matching_helpers import InPlace, made, problems
from tests.lab import parameters


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
