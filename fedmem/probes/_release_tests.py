"""Tests of what a release of a mechanism contains."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measurement import Labels, Measurement, Reading
from fedmem.privacy.mechanism_tests import (
    p_of_mean,
    p_of_pairs,
    p_of_variance,
)

if TYPE_CHECKING:
    import torch


def is_weight(name: str, value: torch.Tensor) -> bool:
    """Whether strategies clip it and add noise to it: not to counters and to what normalisation layers collect."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return value.dtype.is_floating_point and not name.endswith(statistics)


Test = tuple[Labels, float, int]
"""The tested quantity, its p, and the count of numbers behind it."""


def _group_by_labels(rows: Sequence[Measurement], metric: str) -> Mapping[Labels, list[Reading]]:
    groups: dict[Labels, list[Reading]] = {}
    for row in rows:
        if row.reading.metric == metric and not math.isnan(row.reading.value):
            groups.setdefault(row.reading.labels, []).append(row.reading)
    return groups


def variance_tests(rows: Sequence[Measurement]) -> Iterator[Test]:
    """One for each array, and one for the span of the contributions, over all rounds, clients and runs."""
    for metric, what in (("noise_variance", "noise variance"), ("noise_in_span", "noise in the span of updates")):
        for labels, readings in _group_by_labels(rows, metric).items():
            counts = [reading.n for reading in readings]
            yield labels.plus(test=what), p_of_variance([reading.value for reading in readings], counts), sum(counts)


def direction_scores(rows: Sequence[Measurement]) -> Iterator[Test]:
    """Means of standard scores: the noise along the contributions, and what is drawn for batches."""
    for metric, what in (("noise_along", "noise along"), ("batches", "batches")):
        for labels, readings in _group_by_labels(rows, metric).items():
            yield labels.plus(test=what), p_of_mean(np.array([reading.value for reading in readings])), len(readings)


Releases = dict[tuple[Labels, int, int, int], FloatArray]
"""Projections (J,) of the noise by who released it, run, client and round."""


def new_draws_of_tree(releases: Releases, rows: Sequence[Measurement]) -> Releases:
    """The same, where the noise is that of a tree, of the draws that are new in each round: these are independent.

    The change of the prefix in a round is a sum of new draws and of the nodes to the left. Differences of earlier
    prefixes give these nodes: the node of level l to the left of place t is `N(t - 2^l) - N(t - 2^(l + 1))`. Rounds of
    a tree after one that was not observed are left out.
    """
    trees: dict[tuple[int, int], dict[str, float]] = {}
    for row in rows:
        if row.reading.metric == "tree":
            trees.setdefault((row.run_number, row.round_number), {})[row.reading.labels.text("statistic")] = (
                row.reading.value
            )
    new_draws = {key: value for key, value in releases.items() if (key[1], key[3]) not in trees or key[0] != SERVER}
    prefixes: dict[int, FloatArray] = {}
    for key in sorted(releases.keys() - new_draws.keys(), key=lambda key: (key[1], key[3])):
        tree = trees[key[1], key[3]]
        place, change = int(tree["place"]), releases[key] * tree["deviation"]
        if place == 1:
            prefixes = {0: np.zeros_like(change)}
        if place - 1 not in prefixes:
            prefixes = {}
            continue
        prefixes[place] = prefixes[place - 1] + change
        for level in range(sum(name.startswith("left:") for name in tree)):
            node = prefixes[place - 2**level] - prefixes[place - 2 ** (level + 1)]
            change = change - tree[f"left:{level}"] * node
        new_draws[key] = change / tree["new"]
    return new_draws


def correlation_tests(rows: Sequence[Measurement]) -> Iterator[Test]:
    """Between releases that should know nothing of each other."""
    vectors: dict[tuple[Labels, int, int, int], list[float]] = {}
    for row in rows:
        if row.reading.metric == "projection":
            who = row.reading.labels.without("j")
            vectors.setdefault((who, row.run_number, row.client, row.round_number), []).append(row.reading.value)
    releases = {key: np.array(value) for key, value in vectors.items() if not np.isnan(value).any()}
    releases = new_draws_of_tree(releases, rows)
    pairs: dict[Labels, list[tuple[FloatArray, FloatArray]]] = {}
    # each release with the one before it: of the round before, the run before, the client before
    for place, name in ((3, "rounds"), (1, "runs"), (2, "clients")):
        chains: dict[tuple[Labels, tuple[int, ...]], list[tuple[int, FloatArray]]] = {}
        for key, value in releases.items():
            numbers = key[1:]
            others = tuple(number for position, number in enumerate(numbers, start=1) if position != place)
            chains.setdefault((key[0], others), []).append((numbers[place - 1], value))
        for (who, _), chain in chains.items():
            ordered = [value for _, value in sorted(chain, key=lambda pair: pair[0])]
            pairs.setdefault(who.plus(test=f"correlation of {name}"), []).extend(
                (b, a) for a, b in pairwise(ordered) if len(a) == len(b)
            )
    first = {key[1:]: value for key, value in releases.items() if key[0] == step_labels(1)}
    second = {key[1:]: value for key, value in releases.items() if key[0] == step_labels(2)}
    pairs[step_labels(2).plus(test="correlation of steps")] = [
        (second[key], first[key]) for key in second if key in first
    ]
    for labels, group in pairs.items():
        if group:
            left, right = (np.concatenate([pair[side] for pair in group]) for side in (0, 1))
            yield labels, p_of_pairs(left, right), len(left)


SERVER = Labels.of(release="server")
"""The labels of releases of the server."""


def step_labels(step: int) -> Labels:
    """The labels of a local step."""
    return Labels.of(release="step", step=step)
