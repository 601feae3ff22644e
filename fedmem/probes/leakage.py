"""What an update gives away: reconstruction of audit examples from messages, aggregates and first steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Gt

from fedmem.components import Context, GradientTarget, Reconstruction, ReconstructionAttack
from fedmem.errors import ComponentError, RunError
from fedmem.probes._clusters import mean_interval
from fedmem.probes._victims import Case, Victim, score, sheet
from fedmem.statistics import wilson
from fedmem.types import EVERYWHERE, FINAL, Level, Measurement, Params, Reading, Transition

KNOWS = {"message": "lr+steps+count", "aggregate": "lr+steps+count", "first_step": "lr+batch_size+first_step"}
"""What the adversary of each view is granted besides the model before and after. Labels are always inferred."""


RANGES = {"identified": (0.0, 1.0), "label_accuracy": (0.0, 1.0), "coverage": (0.0, 1.0), "distance": (0.0, 2.0)}
"""Metrics with bounds, which an interval does not leave."""


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """Attacks updates and scores how well the audit examples behind them come back, against the best prior.

    Three views, named in the `setting` of every reading together with what the adversary knows:

    - `message` (level local): what a client sent; `g ~ -(sent - before) / (lr * steps)`, which is a gradient only if
      there was one step, and otherwise an approximation that the attack has to live with;
    - `aggregate` (levels global and sum): the same of the server's step, for all images of the cohort together;
    - `first_step` (level local): the gradient of the same client's first batch alone. Nobody in the federation sees
      it: a stronger adversary, and an upper bound on `message`.

    Victims are the audit examples that are in, in the batch in question, and held by the clients attacked. The n true
    images of a batch are paired with the m images rebuilt by the Hungarian method on squared error; a victim with
    copies counts with the best of them. Readings of each victim, on images in [0, 1]:

    - `psnr`: 10 log10(1 / MSE) in dB, capped at 100, higher is nearer;
    - `margin`: `psnr` minus that of the best prior, in dB; above 0 the update gave away more than was known before;
    - `identified`: 1 where the rebuilt image is strictly nearer to the victim than to every image of the gallery, else
      0; chance is about 1 in the size of the gallery, which `setting` states.

    Readings of each attack, without a subject: `label_accuracy` (share of the inferred labels that are right, as a
    multiset; says little where `coverage` is small), `distance` (matching distance reached), `coverage` (m / n).

    Priors, each paired with the batch in the same way, since whoever may offer m images for a victim to choose from
    has an advantage over a single one: grey (0.5 everywhere), the mean of the population, the class means of the
    population for the inferred labels, m random images of the population, and the mean of each canary family. The
    best is taken for each victim by the truth, which favours the priors. The gallery is the population, or for
    canaries the fresh references of their family; no member is in either.

    `summarise` gives the mean of each metric over victims, by kind, for every attacked round and at FINAL over all of
    them. Intervals (95 %) treat the victims of one attack as one cluster: Student's t over clusters, and Wilson's with
    as many trials as clusters for `identified`. One cluster has no interval (NaN) but for `identified`.

    Fields

    - `attack`: how images are rebuilt.
    - `rounds`: which observed rounds to attack; if left out, the first after round 0 and the last.
    - `victims`: clients attacked in each round and run, drawn from those of the cohort that hold an in example; the
      aggregate is scored on the examples of the same clients.
    - `runs`: how many runs are attacked, from run 0 on.
    - `max_images`: largest number of images rebuilt at once; of a larger batch fewer are rebuilt, and each may be
      paired with several true ones.
    - `every`: probe only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to probe.

    Guarantees: what is attacked follows from the scenario alone, never from how an attack went; nothing is changed.

    Errors: `ComponentError` if the client algorithm has no learning rate, since then an update is no gradient.

    >>> from fedmem.attacks.inverting_gradients import InvertingGradients
    >>> Leakage(attack=InvertingGradients()).levels
    ('local', 'global')

    Reference: Geiping et al. (2020); the comparison with priors follows Usynin, Knolle and Kaissis (2024).
    """

    attack: ReconstructionAttack
    rounds: tuple[Annotated[int, Gt(0)], ...] = ()
    victims: Annotated[int, Gt(0)] = 4
    runs: Annotated[int, Gt(0)] = 2
    max_images: Annotated[int, Gt(0)] = 64
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(
        self, transitions: Sequence[Transition], context: Context
    ) -> Sequence[tuple[Transition | None, Reading]]:
        """Attack the chosen transitions of this round, if it is one of the declared ones."""
        first = transitions[0]
        if first.round not in self._declared(context):
            return []
        readings: list[tuple[Transition | None, Reading]] = []
        for view in ("message", "first_step") if first.level == "local" else ("aggregate",):
            cases = self._cases(view, transitions, context)
            if not cases:
                continue
            rng = context.stream(f"leakage {view}", round=first.round)
            found = self.attack.reconstruct([case.target for case in cases], rng)
            victims: list[Victim] = []
            for case, result in zip(cases, found, strict=True):
                scored = score(case, _checked(case, result), context)
                about = _about_attack(case, result, context) + [r for victim in scored for r in _about_victim(victim)]
                readings += [(case.transition, reading) for reading in about]
                victims += scored
            context.keep(f"leakage/round_{first.round}/{first.level}/{view}", sheet(victims))
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means by kind and view, for each attacked round and at FINAL over all of them."""
        groups: dict[tuple[str, int, Level, str, str, str], list[Measurement]] = {}
        for one in measurements:
            setting, _, kind = one.reading.setting.partition(",kind=")
            for round in (one.round, FINAL):
                key = (one.source, round, one.level, one.reading.metric, setting, kind)
                groups.setdefault(key, []).append(one)
        return [
            Measurement(
                run=EVERYWHERE,
                round=round,
                level=level,
                client=EVERYWHERE,
                source=source,
                reading=_mean(metric, members, kind, setting),
            )
            for (source, round, level, metric, setting, kind), members in groups.items()
        ]

    def _declared(self, context: Context) -> tuple[int, ...]:
        """The rounds to attack."""
        if self.rounds:
            return self.rounds
        last = context.observed_rounds[-1]
        due = [r for r in context.observed_rounds if r > 0 and (not self.every or r % self.every == 0 or r == last)]
        return (due[0], due[-1]) if due else ()

    def _cases(self, view: str, transitions: Sequence[Transition], context: Context) -> list[Case]:
        """What to attack in this view."""
        cases = []
        for run in sorted({t.run for t in transitions if t.run < self.runs}):
            own = [t for t in transitions if t.run == run]
            cohort = {client for t in own for client in _clients(t)}
            picked = self._picked(run, own[0].round, cohort, context)
            attacked = [t for t in own if picked.intersection(_clients(t))]
            found = (self._case(view, transition, picked, context) for transition in attacked)
            cases += [case for case in found if case is not None]
        return cases

    def _picked(self, run: int, round: int, cohort: set[int], context: Context) -> set[int]:
        """The clients attacked: the same at every level of a round."""
        audit = context.federation.audit
        holders = np.unique(audit.holder[audit.is_in[run] & audit.active(round)])
        candidates = np.intersect1d(holders, sorted(cohort))
        rng = context.stream("leakage victims", run=run, round=round)
        return set(rng.permutation(candidates)[: self.victims].tolist())

    def _case(self, view: str, transition: Transition, picked: set[int], context: Context) -> Case | None:
        """One attack: its gradient, the true rows behind it and the victims among them; None without victims."""
        federation, run = context.federation, transition.run
        if view == "first_step":
            after, rows = context.first_step(transition)
            steps = 1.0
        else:
            held = [context.rows(run, client, transition.round) for client in _clients(transition)]
            after, rows = transition.sent, np.concatenate(held)
            steps = float(np.mean([context.client.num_steps(len(part)) for part in held]))
        audit = federation.audit
        wanted = audit.is_in[run] & np.isin(audit.holder, sorted(picked))
        victims = np.flatnonzero(wanted & np.isin(federation.audit_start + np.arange(len(audit)), rows))
        if not len(victims):
            return None
        target = GradientTarget(
            model=federation.model,
            params=transition.before,
            gradient=_gradient(transition, after, steps, context),
            num_images=min(len(rows), self.max_images),
            input_shape=federation.store.inputs.shape[1:],
            num_classes=federation.num_classes,
            knows=KNOWS[view],
        )
        return Case(view=view, transition=transition, target=target, rows=rows, victims=victims)


def _clients(transition: Transition) -> tuple[int, ...]:
    """Whose work a transition is."""
    return (transition.client,) if transition.level == "local" else transition.clients


def _gradient(transition: Transition, after: Params, steps: float, context: Context) -> Params:
    """The mean gradient that would have led from one to the other by plain descent, weight decay taken off."""
    lr = getattr(context.client, "lr", None)
    if lr is None:
        raise ComponentError(
            "client",
            "the probe leakage reads an update as a gradient times the learning rate, but the client algorithm "
            f"{type(context.client).__name__} has no field `lr`; use one that has, or leave the probe out",
        )
    lr *= getattr(context.client, "decay", 1.0) ** (transition.round - 1)
    before, decay = transition.before, float(getattr(context.client, "weight_decay", 0.0))
    return {
        name: (before[name].double() - value.double()) / (lr * steps) - decay * before[name].double()
        for name, value in after.items()
    }


def _checked(case: Case, found: Reconstruction) -> Reconstruction:
    """Attacks may come from anywhere: refuse what cannot be scored."""
    if len(found.inputs) == 0 or not np.isfinite(found.inputs).all():
        raise RunError(
            f"run {case.transition.run}, round {case.transition.round}, client {case.transition.client}: the attack "
            f"on view {case.view} must return finite images, at least one; it returned {len(found.inputs)}, "
            f"{np.count_nonzero(~np.isfinite(found.inputs))} of their values not finite"
        )
    return found


def _about_attack(case: Case, found: Reconstruction, context: Context) -> list[Reading]:
    """Readings of the attack as a whole."""
    classes, truth = context.federation.num_classes, context.federation.store.targets[case.rows]
    right = np.minimum(np.bincount(truth, minlength=classes), np.bincount(found.labels, minlength=classes)).sum()
    values = {
        "label_accuracy": right / len(found.labels),
        "distance": found.distance,
        "coverage": len(found.inputs) / len(truth),
    }
    return [Reading(metric=metric, value=float(value), setting=case.setting) for metric, value in values.items()]


def _about_victim(victim: Victim) -> list[Reading]:
    """Readings of one victim; the kind comes last in the setting, because a label may hold anything."""
    subject, setting, kind = str(victim.subject), victim.case.setting, f",kind={victim.kind}"
    margin = victim.psnr - victim.prior_psnr
    readings = [
        Reading(metric="psnr", value=victim.psnr, subject=subject, setting=setting + kind),
        Reading(metric="margin", value=margin, subject=subject, setting=setting + kind),
    ]
    if victim.gallery:
        place = f"{setting},gallery={victim.gallery}{kind}"
        readings.append(Reading(metric="identified", value=victim.identified, subject=subject, setting=place))
    return readings


def _mean(metric: str, members: Sequence[Measurement], kind: str, setting: str) -> Reading:
    """The mean of one metric; victims of one attack are one cluster."""
    values = np.array([one.reading.value for one in members])
    clusters = [(one.run, one.client, one.round) for one in members]
    value = float(values.mean())
    low, high = mean_interval(values, clusters)
    if metric == "identified":
        # All or none identified has no spread, yet says little about the next attack.
        trials = len(set(clusters))
        low, high = (float(end) for end in wilson(value * trials, trials))
    least, most = RANGES.get(metric, (-np.inf, np.inf))
    low, high = (float(np.clip(end, least, most)) for end in (low, high))
    return Reading(metric=metric, value=value, low=low, high=high, n=len(values), subject=kind, setting=setting)
