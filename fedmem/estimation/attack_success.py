"""Success of a membership attack on single examples, from runs that the attack does not know.

Runs are split into shadow runs and target runs. The attack scores each target run from the shadow runs and that run
alone. Its success on one example is the AUC over target runs. This is the share of pairs, a run with the example and a
run without it, in which the first scores higher; ties count half. Leaving one run out at a time instead would pull the
AUC below one half. It would move the mean of the side of that run. Here the shadow runs are fixed. Without memorisation
each coin of a target run is independent of them, and the expected AUC is one half.

Roles are exchanged and splits repeated, and values averaged. One half stays the expectation of the average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.attack import MembershipAttack, Signals, attack_declaration
from fedmem.contracts.validation_of_measures import scores_of
from fedmem.estimation.statistics import mean
from fedmem.guards.guarding import Guard

SUB_SPLITS = 2
"""Splits of a part of the runs into shadow runs and target runs."""


@dataclass(frozen=True, kw_only=True)
class HeldOutScores:
    """The scores of an attack on n examples, each run from shadow runs that do not include it.

    `signals` are those of each of the Q models of a place, whose scores are averaged. `coin_rows` (R,) are equal for
    twins, which are all shadows or all targets; None without twins.
    """

    attack: MembershipAttack
    signals: Sequence[Signals]
    coin_rows: IntArray | None = None

    @property
    def rows(self) -> IntArray:
        """(R,) equal for twins, from 0 on."""
        return np.arange(len(self.is_in)) if self.coin_rows is None else self.coin_rows

    @property
    def is_in(self) -> BoolArray:
        """(R, n) the coins."""
        return self.signals[0].is_in

    def score(self, targets: IntArray, shadows: IntArray) -> FloatArray:
        """(T, n) the scores of the target runs, NaN where there is none.

        The coin of a target is hidden. Some attacks give targets that are in fewer references, on a coarser scale.
        Such scores differ between the two sides without any memorisation. An attack that reads the coins of other
        examples of the target run is shown all of them.
        """
        if not attack_declaration(self.attack).reads_coins:
            return self._score(targets.tolist())
        if not len(targets):
            return np.zeros((0, self.is_in.shape[1]))
        runs = [[*shadows.tolist(), target] for target in targets.tolist()]
        scores = np.stack([self._score(one)[-1] for one in runs])
        as_outs = np.stack([self._score(one, hide_last=True)[-1] for one in runs])
        differs = ~np.isclose(scores, as_outs, rtol=1e-9, atol=1e-12, equal_nan=True)
        # an example that is out keeps its own coin in both: there, only those of other examples can matter
        return as_outs if differs.any() and not differs[~self.is_in[targets]].any() else scores

    def _score(self, runs: Sequence[int], *, hide_last: bool = False) -> FloatArray:
        chosen = np.asarray(runs, dtype=np.int64)
        models = []
        with Guard("attack", self.attack, "scores") as guard:
            for signals in self.signals:
                of_runs = signals.take_runs(chosen)
                if hide_last:
                    is_last = np.arange(len(chosen))[:, None] == len(chosen) - 1
                    of_runs = replace(of_runs, is_in=of_runs.is_in & ~is_last)
                models.append(scores_of(guard, self.attack.scores(of_runs), of_runs.margin))
        return mean(np.stack(models, axis=1), axis=1)

    def success(self, targets: IntArray, shadows: IntArray) -> FloatArray:
        """(n,) the AUC of each example over the target runs."""
        return auc_by_example(self.score(targets, shadows), self.is_in[targets])

    def success_within(self, runs: IntArray, rng: np.random.Generator) -> FloatArray:
        """(n,) the AUC of each example from these runs alone, split again into shadow runs and target runs."""
        parts, rows = [], self.rows[runs]
        for _ in range(SUB_SPLITS):
            order = rng.permutation(np.unique(rows))
            is_first = np.isin(rows, order[: len(order) // 2])
            first, second = runs[is_first], runs[~is_first]
            parts += [self.success(first, second), self.success(second, first)]
        return mean(np.stack(parts), axis=0)


def auc_by_example(scores: FloatArray, is_in: BoolArray) -> FloatArray:
    """(n,) the AUC within each column of scores (T, n), NaN left out; NaN without a run on both sides.

    >>> scores = np.array([[3.0, 1.0], [2.0, 1.0], [1.0, 1.0], [0.0, np.nan]])
    >>> coins = np.array([[True, True], [False, False], [True, False], [False, False]])
    >>> auc_by_example(scores, coins).tolist()
    [0.75, 0.5]
    """
    is_scored = ~np.isnan(scores)
    ins, outs = is_in & is_scored, ~is_in & is_scored
    num_in, num_out = ins.sum(0), outs.sum(0)
    sums = np.where(ins, ranks_by_example(scores), 0.0).sum(0)
    pairs = num_in * num_out
    return np.where(pairs > 0, (sums - num_in * (num_in + 1) / 2) / np.maximum(pairs, 1), np.nan)


def ranks_by_example(scores: FloatArray) -> FloatArray:
    """(T, n) mid-ranks from 1 within each column; NaN is ranked last, after infinity.

    >>> ranks_by_example(np.array([[np.inf], [np.nan], [0.0]])).ravel().tolist()
    [2.0, 3.0, 1.0]
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.where(np.isnan(scores), np.inf, scores), axis=0)
    # a score of infinity is tied with NaN there, which moves its rank
    is_infinite, missing = scores == np.inf, np.isnan(scores).sum(0)
    last = np.where(np.isnan(scores), len(scores) - (missing - 1) / 2, ranks)
    return np.asarray(np.where(is_infinite, last - missing / 2, last), dtype=np.float64)


def shares_beaten(scores: FloatArray, is_in: BoolArray) -> FloatArray:
    """(T, n) for each run the share of the runs of the other side that lie below it, ties half; NaN without any."""
    is_scored = ~np.isnan(scores)
    shares = np.full(scores.shape, np.nan)
    for side in (is_in & is_scored, ~is_in & is_scored):
        other = is_scored & ~side
        hidden = np.where(other, scores, np.nan)
        below = (hidden[None] < scores[:, None]).sum(1) + 0.5 * (hidden[None] == scores[:, None]).sum(1)
        count = other.sum(0)
        shares = np.where(side & (count > 0), below / np.maximum(count, 1), shares)
    return shares
