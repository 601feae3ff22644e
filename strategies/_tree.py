"""Noise by a binary tree over rounds: each prefix sum has the noise of a few nodes, and each node is drawn once.

Round t is a leaf. A node of level l covers 2^l rounds and is complete after the last of them. The nodes that end at
round t are of the levels 0 to v, where 2^v is the largest power of two that divides t. The rounds 1 to t are covered by
as many nodes as t has ones in binary.
"""

from __future__ import annotations

import torch

from ._client_state import part
from ._rule import Arrays


def top(number: int) -> int:
    """The highest level of a node that ends at this round, counted from 1.

    >>> [top(number) for number in (1, 2, 3, 4, 12)]
    [0, 1, 0, 2, 2]
    """
    return (number & -number).bit_length() - 1


def moved_by_one(rounds: int, separation: int, participations: int | None = None, restart: int | None = None) -> int:
    """By how many clips, squared, one client moves all nodes together: an upper bound of sum_nodes c^2.

    A node that holds c participations of the client moves by at most c clips. On each level the participations are put
    where they count most. One node takes as many as fit with `separation` rounds from one to the next, and
    participations fill as many nodes as they can. The bound is exact for one participation, and for a client that
    participates in every round.

    - grows with rounds and participations, falls with the separation; 0 without participations;
    - `participations` are cut to ceil(rounds / separation); each tree has `restart` rounds, or there is one.

    >>> moved_by_one(16, 16), moved_by_one(16, 4), moved_by_one(4, 1)  # 5 levels; 4 4 4 8 16; 4 8 16
    (5, 36, 28)
    """
    assert rounds >= 0
    assert separation >= 1
    max_participations = (
        -(-rounds // separation) if participations is None else min(participations, -(-rounds // separation))
    )
    length = min(rounds, restart or rounds)
    if max_participations == 0:
        return 0
    trees, rest = divmod(rounds, length)
    total = 0
    for size in (1 << level for level in range(length.bit_length())):
        nodes, fit = trees * (length // size) + rest // size, min(max_participations, -(-size // separation))
        full = min(nodes, max_participations // fit)
        total += full * fit**2 + (max_participations - full * fit) ** 2 * (full < nodes)
    return total


def levels_of(state: Arrays) -> list[Arrays]:
    """The noise of the last complete node of each level, the lowest first; zero where it is in no prefix any more."""
    count = 1 + max(int(name.split(":")[1]) for name in state if name.startswith("level:"))
    return [part(state, f"level:{level}:") for level in range(count)]


def climb_tree(fresh: Arrays, below: list[Arrays], own_noise_only: bool) -> Arrays:
    """The noise of the highest node that ends now, from fresh noise by level and name and the nodes to its left.

    Given its own fresh noise alone, it is that noise, of variance 1. Given all fresh noise from the leaf on, it
    averages its own noise and that of its two halves with the least variance. That variance is 2^l / (2^(l + 1) - 1) at
    level l (Honaker, 2015).
    """
    highest = len(below)
    node, variance = part(fresh, f"{highest if own_noise_only else 0}:"), 1.0
    for level, left_node in enumerate(below if not own_noise_only else ()):
        variance = 2 * variance / (1 + 2 * variance)
        single = part(fresh, f"{level + 1}:")
        node = {name: variance * single[name] + (1 - variance) * (left_node[name] + node[name]) for name in node}
    return node


def change_of(place: int, own_noise_only: bool) -> tuple[float, float, list[float]]:
    """The change of the prefix's noise in the round at this place of a tree, counted from 1.

    It is the highest node that ends now minus the nodes to its left, `climb_tree(...) - sum of below`. So it is a sum
    of draws that are new in this round, and of the nodes to the left. Returns the variance of the change, the variance
    of the new draws alone, and the coefficients of the nodes to the left. Coefficients are in order of level, the
    lowest first. Variances are in units of the variance of a draw.

    >>> [round(change_of(place, own_noise_only=True)[0], 2) for place in (1, 2, 3, 4)]
    [1.0, 2.0, 1.0, 3.0]
    >>> [round(change_of(place, own_noise_only=False)[0], 2) for place in (1, 2, 3, 4)]
    [1.0, 1.0, 1.0, 1.38]
    """
    highest = top(place)
    if own_noise_only:
        return 1.0 + highest, 1.0, [-1.0] * highest
    # coefficients of the fresh draws, and of the nodes to the left, whose variances are known
    fresh, variance = [1.0], 1.0
    coefficients: list[float] = []
    variances: list[float] = []
    for _ in range(highest):
        variances.append(variance)
        variance = 2 * variance / (1 + 2 * variance)
        fresh = [(1 - variance) * value for value in fresh] + [variance]
        coefficients = [(1 - variance) * value for value in coefficients] + [1 - variance]
    coefficients = [value - 1 for value in coefficients]
    fresh_variance = sum(value * value for value in fresh)
    return (
        fresh_variance + sum(value * value * var for value, var in zip(coefficients, variances, strict=True)),
        fresh_variance,
        coefficients,
    )


def zeros_of(before: Arrays) -> Arrays:
    """A node without noise."""
    return {name: torch.zeros(value.shape, dtype=torch.float64) for name, value in before.items()}
