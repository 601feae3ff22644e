"""How well an attack tells from the model who was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from fedmem.components import MembershipAttack, Signals
from fedmem.guarding import Guard
from fedmem.statistics import auc, mean, null_tpr, smallest_fpr, tpr, weightings
from fedmem.types import Estimate, FloatArray, IntArray, Reading, View
from fedmem.validation import scores_of


@dataclass(frozen=True, kw_only=True)
class Membership:
    """AUC and true positive rate of a membership attack, over all examples of a kind and all runs at once.

    - `auc`: probability that a member scores above a non-member, ties half; 0.5 is chance. Setting: the attack, with
      the fields that are not at their default;
    - `tpr`: share of members found at the smallest false positive rate that the data support, 10 / (number n of outs).
      Setting: the attack, then `fpr=…`. Left out with fewer than ten outs. A member is found if it scores above the
      eleventh highest out, so the null is 11 / (n + 1); equal scores are refused together, so with all scores tied
      nobody is found.

    Never per example: leaving the target out pulls each example's own AUC below one half, so no example is compared
    with itself in another run either. At the others, the scores
    that an example gets from the models of one run are averaged: an adversary who sees them all. Intervals
    resample scores, they do not attack anew: the attack, shadow models included, is taken as given.

    Fields:
        attack: scores membership from margins and the losses of the population; it sees one kind at a time, so what it
            takes from other runs never mixes kinds.

    >>> from fedmem.attacks.lira import Lira
    >>> Membership(attack=Lira()).min_runs
    8
    """

    attack: MembershipAttack

    @property
    def min_runs(self) -> int:
        """What the attack needs, and at least one run in and one out."""
        return max(2, getattr(self.attack, "min_runs", 2))

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind, `auc` and, where the data support one, `tpr`."""
        audit = view.audit
        runs, examples = weightings(view.resampling)
        label = _label(self.attack)
        found = []
        for kind in audit.kinds:
            rows = np.flatnonzero(audit.kind == kind)
            is_in, weights = audit.is_in[:, rows], examples[:, rows]
            scores = self._scores(view, rows)
            seen = ~np.isnan(scores)
            n_in, n_out = int((seen & is_in).sum()), int((seen & ~is_in).sum())
            if not n_in or not n_out:
                continue
            fpr = smallest_fpr(n_out)
            results = [("auc", label, auc(scores, is_in, runs, weights), 0.5)]
            if not math.isnan(fpr):
                results.append(
                    ("tpr", f"{label},fpr={fpr:.4g}", tpr(scores, is_in, runs, weights, fpr), null_tpr(n_out))
                )
            observed = rows[seen.any(0)]
            for metric, setting, values, null in results:
                found.append(
                    Estimate(
                        metric=metric,
                        kind=kind,
                        setting=setting,
                        value=float(values[0]),
                        replicates=values[1:],
                        null=null,
                        n=len(observed),
                        examples=observed,
                    )
                )
        return found

    def tests(self, view: View) -> Sequence[tuple[int, Reading]]:
        """None."""
        return ()

    def _scores(self, view: View, rows: IntArray) -> FloatArray:
        """(R, n) scores of these examples: each of the Q models attacked by itself, then averaged."""
        signals = [_signals(view, rows, q) for q in range(view.margin.shape[1])]
        with Guard("attack", self.attack, "scores") as guard:
            models = [scores_of(guard, self.attack.scores(seen), seen.margin) for seen in signals]
        return mean(np.stack(models, axis=1), axis=1)


def _signals(view: View, rows: IntArray, q: int) -> Signals:
    """What the q-th models of a view show of these examples, and of the population where there is one."""
    margin, is_in = view.margin[:, q, rows], view.audit.is_in[:, rows]
    population = view.sets.get("population")
    if population is None:
        return Signals(margin=margin, is_in=is_in)
    of = population.models.of[q, rows]
    pairs = np.unique(of[of >= 0])
    losses = [population.loss(pair) for pair in pairs.tolist()] or [population.loss(0)[:, :0]]
    model = np.where(of < 0, -1, np.searchsorted(pairs, of))
    return Signals(margin=margin, is_in=is_in, population=np.stack(losses), model=model)


def _label(attack: MembershipAttack) -> str:
    """The kind of the attack and what differs from its defaults, as in `lira variance=pooled`."""
    kind = type(attack).__module__.rpartition(".")[2]
    changed = [f.name for f in fields(attack) if getattr(attack, f.name) != f.default]  # type: ignore[arg-type]
    return " ".join([kind, *(f"{name}={getattr(attack, name)}" for name in changed)])
