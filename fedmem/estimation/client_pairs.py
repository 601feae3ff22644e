"""AUC of an attack on a label of clients that trains on other clients in other runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.estimation.held_out_pairs import TIE, PairArea, fit_direction, hull, upper_p

_ALL = 2000
"""Deals of labels that are enumerated at most."""

_PAIRS = 200
"""Pairs of clients that are compared at most."""

Features = Callable[[tuple[int, int], int], FloatArray]
"""(pair, client) -> (R, d): features of the client, without those of the rest of the pair; NaN where there are none."""


def client_area(
    features: Features, is_positive: BoolArray, penalty: float, halves: BoolArray, rng: np.random.Generator
) -> PairArea:
    """The AUC of an attack on a label that each client has in all runs.

    A pair of clients is left out, one of each label. The attack is fitted on all others in one half of the runs, and
    scores the pair in each run of the other half. The AUC is the share of pairs and runs in which the positive client
    scores higher, ties counted half. Features and labels are measured from their means over the clients of a run.

    p is from labels that are dealt to other clients, all deals or 999 of them. NaN with fewer than two clients of a
    label. Above 200 pairs of clients, 200 are drawn.

    The interval is the hull of three. The first is a jackknife over clients, with the fits as they are. The second is
    Wilson's for disjoint pairs. The third is the value ± the smallest distance from ½ that 95 % of the deals
    do not exceed.
    Without an attribute all deals are equally likely, so that the interval contains ½ in 95 % of cases or more.

    Args:
        features: Of a client in all runs.
        is_positive: (N,) the labels.
        penalty: The ridge, as in `held_out_pairs.pair_area`.
        halves: (H, R) the runs of one half, for each of H splits.
        rng: Draws deals and pairs.
    """
    clients, positive = len(is_positive), int(is_positive.sum())
    if min(positive, clients - positive) < 2:
        return PairArea(value=math.nan, low=math.nan, high=math.nan, p=math.nan, n=clients, deals=0)
    labels = deal_labels(is_positive, rng)
    pairs = list(combinations(range(clients), 2))
    if len(pairs) > _PAIRS:
        pairs = [pairs[place] for place in np.sort(rng.choice(len(pairs), size=_PAIRS, replace=False))]
    won, count = np.zeros(len(labels)), np.zeros(len(labels))
    won_by_client, count_by_client = np.zeros(clients), np.zeros(clients)
    for first, second in pairs:
        share = _share_won(features, (first, second), labels, penalty, halves)
        if share is None:
            continue
        is_won = np.where(labels[:, first], share, 1.0 - share)
        is_pair = labels[:, first] != labels[:, second]
        won, count = won + np.where(is_pair, is_won, 0.0), count + is_pair
        if is_pair[0]:
            won_by_client[[first, second]] += is_won[0]
            count_by_client[[first, second]] += 1
    if not count[0]:
        return PairArea(value=math.nan, low=math.nan, high=math.nan, p=math.nan, n=clients, deals=0)
    areas = np.divide(won, count, out=np.full(len(won), math.nan), where=count > 0)
    rest = count[0] - count_by_client
    without = np.divide(won[0] - won_by_client, rest, out=np.full(clients, math.nan), where=rest > 0)
    value = float(areas[0])
    low, high = hull(value, without, labels[:1])
    half = distance_of_deals(areas)
    low, high = min(low, max(0.0, value - half)), max(high, min(1.0, value + half))
    return PairArea(value=value, low=low, high=high, p=upper_p(areas), n=clients, deals=len(areas) - 1)


def distance_of_deals(areas: FloatArray, level: float = 0.95) -> float:
    """The smallest distance from ½ that a share `level` of equally likely AUCs (D,) does not exceed, NaN left out.

    >>> distance_of_deals(np.array([0.5, 0.4, 0.75, 1.0]), 0.75)
    0.25
    """
    distances = np.abs(areas[~np.isnan(areas)] - 0.5)
    return float(np.quantile(distances, level, method="inverted_cdf"))


def deal_labels(is_positive: BoolArray, rng: np.random.Generator) -> BoolArray:
    """(D, N) labels as they are, and as they could have been dealt: all ways, or 999 random ones.

    >>> deal_labels(np.array([True, True, False, False]), np.random.default_rng(0)).shape
    (6, 4)
    """
    clients, positive = len(is_positive), int(is_positive.sum())
    if math.comb(clients, positive) <= _ALL:
        ways = [np.isin(np.arange(clients), chosen) for chosen in combinations(range(clients), positive)]
        every = np.array(ways)
        return np.concatenate([is_positive[None], every[(every != is_positive).any(axis=1)]])
    return np.concatenate([is_positive[None], rng.permuted(np.tile(is_positive, (999, 1)), axis=1)])


def _share_won(
    features: Features, pair: tuple[int, int], labels: BoolArray, penalty: float, halves: BoolArray
) -> FloatArray | None:
    """(D,) in which share of runs the first client of a pair scores above the second; None without such a run."""
    others = np.setdiff1d(np.arange(labels.shape[1]), pair)
    table = np.stack([features(pair, int(client)) for client in others], axis=1)
    usable: BoolArray = np.asarray(np.isfinite(table).all(axis=2))
    gap = features(pair, pair[0]) - features(pair, pair[1])
    has_both = np.isfinite(gap).all(axis=1)
    won, runs = np.zeros(len(labels)), 0
    for half in halves:
        for fitted in (half, ~half):
            tested = np.flatnonzero(~fitted & has_both)
            parts: Sequence[tuple[FloatArray, BoolArray]] = [
                (table[run, usable[run]], labels[:, others[usable[run]]])
                for run in np.flatnonzero(fitted).tolist()
                if usable[run].sum() > 1
            ]
            direction = fit_direction(parts, penalty)
            if direction is None or not len(tested):
                continue
            score = gap[tested] @ direction
            tie = TIE * np.maximum(np.abs(direction).max(axis=0, initial=0.0), 1e-300)
            won = won + np.where(np.abs(score) <= tie, 0.5, score > 0).sum(axis=0)
            runs += len(tested)
    return won / runs if runs else None
