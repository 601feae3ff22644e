"""Targets as problems to solve: their starts, the stacks that they are solved in, and which restart is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.attacks._labels import guess_labels, infer_labels, last_bias, last_bias_name
from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.processes import ForkPool, num_processes

STACK_VALUES = 1 << 22
"""Numbers that one stack may hold at once, by an estimate made beforehand: what stays in a core's cache."""

PER_INPUT = 128
"""Numbers for each input of a reconstruction: activations, slopes, patches, and what is kept for their gradients."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One start of one target: what to match, from where, under which labels, and in which `batches` (steps, B)."""

    index: int
    target: GradientTarget
    inputs: NDArray[np.float32]
    labels: IntArray
    batches: IntArray | None = None


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Images (n, *shape), their labels (n,), and the matching distance that they reach; texts as `Reconstruction`."""

    inputs: NDArray[Any]
    labels: IntArray
    distance: float


Solve = Callable[[Sequence[Problem]], list[Solution]]
"""Solves a stack of problems of one model with the same parameters, and answers in their order."""


def labels_of(target: GradientTarget) -> IntArray:
    """Those granted, else inferred."""
    return infer_or_guess_labels(target) if target.labels is None else target.labels


def infer_or_guess_labels(target: GradientTarget) -> IntArray:
    """The labels that the bias of the last layer shows; where that stays with the client, the uniform guess."""
    if last_bias_name(target.params, target.num_classes) in target.personal:
        return guess_labels(target.num_images, target.num_classes)
    return infer_labels(last_bias(target.gradient, target.num_classes), target.num_images)


def starts(
    targets: Sequence[GradientTarget],
    rngs: Sequence[np.random.Generator],
    restarts: int,
    labels: Callable[[GradientTarget], IntArray] = labels_of,
) -> list[Problem]:
    """The restarts of each target, from uniform noise of its own generator."""
    problems = []
    for index, (target, rng) in enumerate(zip(targets, rngs, strict=True)):
        target_labels = labels(target)
        noise = rng.random((restarts, target.num_images, *target.input_shape), dtype=np.float32)
        problems += [Problem(index=index, target=target, inputs=inputs, labels=target_labels) for inputs in noise]
    return problems


def best_restarts(
    problems: Sequence[Problem], solve: Solve, *, together: bool = False, times: int = 1
) -> list[Reconstruction]:
    """The restart of each target with the smallest distance, targets in their order; one without a distance loses.

    Problems are stacked with others of the same parameters alone, so that nothing that another model is asked at the
    same time changes a bit. With `together` the restarts of a target are in one stack, whatever their size. A problem
    that keeps its values many `times` over needs smaller stacks. Stacks are shared out among as many processes as are
    free; where they are cut does not depend on how many these are.
    """
    stacks = [part for group in _by_params(problems) for part in _stacks_of(group, together, times)]
    best: dict[int, Solution] = {}
    for stack, solutions in zip(stacks, _shared_out(stacks, solve), strict=True):
        for problem, solution in zip(stack, solutions, strict=True):
            old = best.get(problem.index)
            if old is None or solution.distance < old.distance or math.isnan(old.distance):
                best[problem.index] = solution
    return [
        Reconstruction(inputs=solution.inputs, labels=solution.labels, distance=solution.distance)
        for _, solution in sorted(best.items(), key=lambda item: item[0])
    ]


def _by_params(problems: Sequence[Problem]) -> list[list[Problem]]:
    """Problems of one model with the same parameters, in the order in which the first of each group came."""
    groups: list[tuple[GradientTarget, list[Problem]]] = []
    for _, group in groupby(problems, key=lambda problem: problem.index):
        restarts = list(group)
        target = restarts[0].target
        for first, members in groups:
            if _have_same_model(target, first):
                members.extend(restarts)
                break
        else:
            groups.append((target, restarts))
    return [members for _, members in groups]


def _have_same_model(first: GradientTarget, other: GradientTarget) -> bool:
    """Whether two targets are about the same model, trained in the same way."""
    same_training = first.algorithm == other.algorithm and _are_equal(first.payload, other.payload)
    same_model = first.model is other.model and first.personal == other.personal
    return same_training and same_model and _are_equal(first.params, other.params)


def _are_equal(first: Params, other: Params) -> bool:
    import torch

    return first is other or (
        first.keys() == other.keys()
        and all(value is other[name] or torch.equal(value, other[name]) for name, value in first.items())
    )


def _stacks_of(problems: Sequence[Problem], together: bool, times: int) -> list[list[Problem]]:
    """Stacks of like sizes, which waste little on padding, and of about equal lengths."""
    ordered = sorted(problems, key=lambda problem: (-len(problem.labels), problem.index))
    size = sum(value.numel() for value in ordered[0].target.params.values())
    limit = max(1, STACK_VALUES // (times * (size + PER_INPUT * ordered[0].inputs.size)))
    units = (
        [list(restarts) for _, restarts in groupby(ordered, key=lambda problem: problem.index)]
        if together
        else [[problem] for problem in ordered]
    )
    per_stack = max(1, limit // max(len(unit) for unit in units))
    count = -(-len(units) // per_stack)
    bounds = [len(units) * i // count for i in range(count + 1)]
    return [[problem for unit in units[start:stop] for problem in unit] for start, stop in pairwise(bounds)]


def _shared_out(stacks: Sequence[Sequence[Problem]], solve: Solve) -> list[list[Solution]]:
    """Solved in this process, or in several that have as many threads each, where there are hands for them."""
    import torch

    many = min(num_processes(), len(stacks))
    if many < 2:
        return [solve(stack) for stack in stacks]
    solutions: dict[int, list[Solution]] = {}
    with ForkPool(partial(_solve_stacks, stacks, solve, torch.get_num_threads()), lambda *_: None) as pool:
        for first in range(many):
            pool.start(f"stack {first} of an attack", range(first, len(stacks), many))
        for _ in range(many):
            solutions.update(pool.wait_for_one()[1])
    return [solutions[place] for place in range(len(stacks))]


def _solve_stacks(
    stacks: Sequence[Sequence[Problem]], solve: Solve, threads: int, places: Sequence[int], _: object
) -> dict[int, list[Solution]]:
    import torch

    torch.set_num_threads(threads)
    return {place: solve(stacks[place]) for place in places}
