"""How well an attack distinguishes members from non-members by the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.attack import MembershipAttack, Signals, attack_declaration
from fedmem.contracts.estimator import Estimate, MembershipScores, View
from fedmem.contracts.families import kind_of
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels, Reading
from fedmem.contracts.validation_of_measures import scores_of
from fedmem.errors import ComponentError
from fedmem.estimation.attack_series import others_until, series_until
from fedmem.estimation.randomisation import areas, num_redeals, of_auc, of_statistic, two_sided
from fedmem.estimation.roc import auc, null_tpr, rates, tpr
from fedmem.estimation.statistics import mean
from fedmem.estimation.twins import sets_without_twins
from fedmem.estimation.two_way import influence, place_among
from fedmem.guards.guarding import Guard

_DEALS = 200
"""Deals of the coins, the true one among them, under which an attack that reads coins is repeated in the summary."""

_FEW = 21
"""The same at other rounds, where they give a null and no p."""


@dataclass(frozen=True, kw_only=True)
class Membership:
    """AUC and true positive rates of a membership attack, over all examples of a kind and all runs at once.

    - `auc`: probability that a member scores above a non-member, ties half; 0.5 is chance. Labels: `attack`, and
      `options`, its fields that are not at their default;
    - `tpr`: share of members found at a false positive rate: 10 %, 1 % and 0.1 % where these are at least ten of the n
      outs, and the smallest that the data support, 10 / n. Label: `fpr`. Left out with fewer than ten outs. With k outs
      allowed, a member is found if it scores above the k + 1-th highest out, so the null is (k + 1) / (n + 1). Equal
      scores are refused together, so with all scores tied no member is found.

    The null of an AUC is its average with re-dealt coins: 0.5 for an attack that reads no coins. LiRA has .48 with 8
    runs, since leaving the target out makes its side noisier. At the others, where nothing is divided by it, the null
    is 0.5. The summary also has a p of no memorisation from the same deals, exact whatever the null. The others of an
    attack that reads coins have no such p.

    A run is never a shadow run of its twins, the runs with the same coins. The runs are divided into sets without
    twins, and each set is attacked alone. An attack then has R / twins runs.

    Where examples are in or out together, the null of every attack that reads coins is from re-dealt coins, also at the
    others. Such kinds have no `tpr`: a threshold that few runs set has more than its share of members above it. The
    mean with all examples of a run in or all out, and a spread between runs alone, is one half at any rate.

    Never per example: leaving the target out pulls each example's own AUC below one half. So no example is compared
    with itself in another run either. At the others, the scores that an example gets from the models of one run are
    averaged, for an adversary that sees them all. Intervals take the scores as given: the attack, shadow models
    included, is not repeated.

    Fields:
        attack: The membership attack. It scores the examples of one kind at a time, from their margins in all runs. An
            attack may also declare that it reads losses of the population, labels, inputs or stored signals.

    >>> from fedmem.attacks.lira import Lira
    >>> Membership(attack=Lira()).min_runs
    8
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="auc",
            title="AUC",
            means="The probability that the attack scores a random member above a random non-member of the same kind; "
            "0.5 is guessing. The attack knows the other runs, as shadow runs.",
            is_not="It measures what an attacker learns about presence, not how much of the example is stored. An "
            "average can hide a few examples that are fully exposed.",
            unit="share",
            range=(0.0, 1.0),
            null=0.5,
            headline=True,
            shows="detectable",
            terms=(("AUC", "probability that a member scores above a non-member; 0.5 is guessing"),),
            order=3,
            saturated=(0.01, 0.99),
            bound="auc",
        ),
        Measure(
            name="tpr",
            title="TPR",
            means="The share of members that the attack finds while it accuses at most the stated share of "
            "non-members.",
            is_not="It says nothing below that rate: ten false alarms are the fewest that the data can count.",
            unit="share",
            range=(0.0, 1.0),
            headline=True,
            terms=(
                (
                    "TPR",
                    "true positive rate: share of members that are found. They score above the k + 1-th highest of n "
                    "non-members, so that without memorisation it is (k + 1) / (n + 1), a little more than FPR",
                ),
                (
                    "FPR",
                    "false positive rate: k / n, the share of n non-members that are taken for members. At the "
                    "smallest rate k is 10, the fewest that are counted",
                ),
            ),
            order=3,
            saturated=(0.0, 0.99),
            bound="tpr",
        ),
    )

    attack: MembershipAttack

    counts_groups: ClassVar[bool] = True
    reads_relearning: ClassVar[bool] = True
    densities: ClassVar[bool] = True

    @property
    def min_runs(self) -> int:
        """The needs of the attack, and at least one run in and one out."""
        return max(2, attack_declaration(self.attack).min_runs)

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind, `auc` and, where the data support them, `tpr`."""
        audit, label = view.audit, labels_of_attack(self.attack)
        estimates: list[Estimate] = []
        if not is_shown(view, self.attack):
            return estimates
        for kind in audit.kinds:
            rows = np.flatnonzero(audit.kind == kind)
            is_in = audit.is_in[:, rows]
            signals = signals_on(view, rows, self.attack)
            scores = self._scores(signals, view)
            is_scored = ~np.isnan(scores)
            n_out = int((is_scored & ~is_in).sum())
            if not (is_scored & is_in).any() or not n_out:
                continue
            area = auc(scores, is_in)
            if math.isnan(area.value):
                continue
            null, p, deals = self._null_distribution(view, rows, signals, scores)
            results = [("auc", label, area, null, p)]
            results += [
                ("tpr", label.plus(fpr=float(f"{fpr:.4g}")), tpr(scores, is_in, fpr), null_tpr(n_out, fpr), math.nan)
                for fpr in (() if audit.shares_coins(rows) else rates(n_out))
            ]
            observed = rows[is_scored.any(0)]
            for metric, labels, rated, null, p in results:
                estimates.append(
                    Estimate(
                        metric=metric,
                        kind=kind,
                        labels=labels,
                        value=rated.value,
                        influence=place_among(influence(rated.weights, rated.shares), rows, len(audit)),
                        null=null,
                        bounds=(0.0, 1.0),
                        p=p,
                        redeals=deals,
                        n=len(observed),
                        examples=observed,
                    )
                )
        return estimates

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None."""
        return ()

    def membership_scores(self, view: View) -> Sequence[MembershipScores]:
        """The scores that `estimate` reads, kind by kind; of kinds with rates at all false positive rates."""
        result: list[MembershipScores] = []
        for kind in view.audit.kinds if is_shown(view, self.attack) else ():
            rows = np.flatnonzero(view.audit.kind == kind)
            if view.audit.shares_coins(rows):
                continue
            scores = self._scores(signals_on(view, rows, self.attack), view)
            is_in = view.audit.is_in[:, rows]
            result.append(MembershipScores(kind=kind, labels=labels_of_attack(self.attack), scores=scores, is_in=is_in))
        return result

    def _scores(self, signals: Sequence[Signals], view: View) -> FloatArray:
        """(R, n) scores of these examples: each of the Q models attacked alone, then averaged."""
        again = [self._score_function(signal, view, repeated=False) for signal in signals]
        with Guard("attack", self.attack, "scores") as guard:
            models = [
                scores_of(guard, score(signal.is_in), signal.margin)
                for score, signal in zip(again, signals, strict=True)
            ]
        return mean(np.stack(models, axis=1), axis=1)

    def _null_distribution(
        self, view: View, rows: IntArray, signals: Sequence[Signals], scores: FloatArray
    ) -> tuple[float, float, int]:
        """The mean of the AUC under re-dealt coins, the p of the actual coins, and the number of deals."""
        others, final = view.place == "others", view.round is None
        declared, together = attack_declaration(self.attack), view.audit.shares_coins(rows)
        # a stated null is that of examples which are drawn alone
        null = None if together and declared.reads_coins else declared.null_auc
        if not declared.reads_coins:
            p = of_auc(scores, rows, view.redeals) if final else math.nan
            return 0.5 if null is None else null, p, num_redeals(view.redeals, rows)
        if (others or null is not None) and not (final and not others) and not together:
            # at the others nothing is divided by it
            return 0.5 if null is None else null, math.nan, 0
        again = [self._score_function(signal, view) for signal in signals]

        def auc_of_coins(is_in: BoolArray) -> float:
            with Guard("attack", self.attack, "scores") as guard:
                scores_by_model = [scores_of(guard, scored(is_in), scores) for scored in again]
            return float(areas(mean(np.stack(scores_by_model, axis=1), axis=1), is_in[None].astype(np.float64))[0])

        has_p = final and not others
        statistics = of_statistic(auc_of_coins, rows, view.redeals, _DEALS if has_p else _FEW)
        if null is None:
            null_values = statistics[1:][~np.isnan(statistics[1:])]
            null = float(null_values.mean()) if len(null_values) else 0.5
        return null, two_sided(statistics) if has_p and len(statistics) > 1 else math.nan, len(statistics) - 1

    def _score_function(
        self, signals: Signals, view: View, *, repeated: bool = True
    ) -> Callable[[BoolArray], FloatArray]:
        """The scores of one model as a function of the coins. A run is never attacked with the help of its twins."""
        sets = sets_without_twins(view.audit)
        if len(sets) == 1:
            return self._score_function_of(signals, repeated=repeated)
        functions = [self._score_function_of(signals.take_runs(runs), repeated=repeated) for runs in sets]

        def scores(is_in: BoolArray) -> FloatArray:
            values = np.full(signals.margin.shape, np.nan)
            with Guard("attack", self.attack, "scores") as guard:
                for runs, function in zip(sets, functions, strict=True):
                    values[runs] = scores_of(guard, function(is_in[runs]), signals.margin[runs])
            return values

        return scores

    def _score_function_of(self, signals: Signals, *, repeated: bool) -> Callable[[BoolArray], FloatArray]:
        """The same of runs without twins; `repeated` where it is called many times."""
        under = attack_declaration(self.attack).scores_under_coins if repeated else None
        if under is not None:
            again: Callable[[BoolArray], FloatArray] = under(signals)
            return again
        return lambda is_in: self.attack.scores(replace(signals, is_in=is_in))


def is_shown(view: View, attack: MembershipAttack) -> bool:
    """Whether the place has the sequences of models that the attack reads."""
    declared = attack_declaration(attack)
    if declared.reads_others and view.others is None:
        return False
    return not declared.reads_series or (view.series is not None and view.place != "others")


def signals_on(view: View, rows: IntArray, attack: MembershipAttack) -> Sequence[Signals]:
    """The evidence of each of the Q models on these examples, with the series that the attack declares."""
    declared = attack_declaration(attack)
    series = series_until(view, rows, declared.reads_series)
    others = others_until(view, rows, declared.reads_others)
    models = [_signals(view, rows, q, attack) for q in range(view.margin.shape[1])]
    return [replace(signals, series=series, others=others) for signals in models]


def _signals(view: View, rows: IntArray, q: int, attack: MembershipAttack) -> Signals:
    """The evidence of the q-th models of a view on these examples, as far as the attack declares that it reads it."""
    declared = attack_declaration(attack)
    read = {name: _stored_as(view, name) for name in declared.reads_signals}
    missing = [name for name, stored in read.items() if not stored]
    missing += [name for name in declared.reads_series if view.series and not view.series.has(name)]
    missing += [name for name in declared.reads_others if view.others and not view.others.has(name)]
    names = ", ".join(dict.fromkeys(missing))
    if missing:
        raise ComponentError(
            "attack.kind",
            f"{kind_of(attack)} reads the signal {names}, which these runs do not have; use another attack, or a "
            "scenario with this signal",
        )
    grants: dict[str, Any] = {}
    if declared.needs_population:
        grants |= _population(view, rows, q)
    population = view.sets.get("population")
    if "labels" in declared.reads:
        grants["labels"] = view.audit.examples.labels[rows]
        grants["population_labels"] = None if population is None else population.targets
    if "correct" in declared.reads:
        grants["correct"] = view.correct[:, q, rows]
    if "initial" in declared.reads:
        if view.initial is None:
            raise ComponentError(
                "attack.kind",
                f"{kind_of(attack)} reads the losses of the initial model, which these runs do not have; observe level "
                "global, or use another attack",
            )
        grants["initial"] = view.initial[:, rows]
    if "inputs" in declared.reads:
        grants["inputs"] = view.audit.examples.inputs[rows]
        grants["population_inputs"] = None if population is None else population.inputs
    return Signals(
        margin=view.margin[:, q, rows],
        is_in=view.audit.is_in[:, rows],
        signals={name: view.signals[name][:, q, rows] for stored in read.values() for name in stored},
        **grants,
    )


def _stored_as(view: View, name: str) -> list[str]:
    """The names of the values of a signal: one, or one for each class; empty if there are none."""
    return [name] if name in view.signals else [key for key in view.signals if key.rpartition(".")[0] == name]


def _population(view: View, rows: IntArray, q: int) -> dict[str, Any]:
    """The losses of the population at the models that show these examples, where there is a population."""
    population = view.sets.get("population")
    if population is None:
        return {}
    of = population.models.of[q, rows]
    pairs = np.unique(of[of >= 0])
    losses = [population.loss(pair) for pair in pairs.tolist()] or [population.loss(0)[:, :0]]
    return {"population": np.stack(losses), "model": np.where(of < 0, -1, np.searchsorted(pairs, of))}


def labels_of_attack(attack: MembershipAttack) -> Labels:
    """The kind of the attack, and its fields that are not at their default, as in `variance=pooled`."""
    kind = type(attack).__module__.rpartition(".")[2]
    changed = [f.name for f in fields(attack) if getattr(attack, f.name) != f.default]  # type: ignore[arg-type]
    return Labels.of(attack=kind, options=" ".join(f"{name}={getattr(attack, name)}" for name in changed))
