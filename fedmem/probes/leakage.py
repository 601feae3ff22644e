"""What an update gives away: reconstruction of audit examples from messages, aggregates and first steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Gt

from fedmem.components import Context, GradientTarget, Reconstruction, ReconstructionAttack
from fedmem.errors import ComponentError, RunError
from fedmem.probes._clusters import difference_interval, mean_interval
from fedmem.probes._victims import Case, Control, Victim, score, sheet
from fedmem.statistics import newcombe, wilson
from fedmem.sums import in_order
from fedmem.types import EVERYWHERE, FINAL, FloatArray, IntArray, Level, Measurement, Params, Reading, Transition

KNOWS = {
    "message": "lr+steps+count",
    "sum": "lr+steps+count",
    "aggregate": "lr+steps+count",
    "first_step": "lr+batch_size+first_step",
}
"""What the adversary of each view is granted besides the model before and after. Labels are always inferred."""


RANGES = {
    "identified": (0.0, 1.0),
    "identified.difference": (-1.0, 1.0),
    "label_accuracy": (0.0, 1.0),
    "label_accuracy.guess": (0.0, 1.0),
    "coverage": (0.0, 1.0),
    "distance": (0.0, 2.0),
}
"""Metrics with bounds, which an interval does not leave."""

VIEWS: dict[Level, tuple[str, ...]] = {"local": ("message", "first_step"), "sum": ("sum",), "global": ("aggregate",)}
"""What is attacked at each level."""

CONTROL = ",coin=out"
"""The word in the setting of readings of controls."""


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """Attacks updates and scores how well the audit examples behind them come back, against the best prior.

    Four views, named in the `setting` of every reading together with what the adversary knows:

    - `message` (level local): what a client sent; `g ~ -(sent - before) / (lr * steps)`, which is a gradient only if
      there was one step, and otherwise an approximation that the attack has to live with;
    - `sum` (level sum): the same of the sum over some clients, which is all that secure aggregation lets a server see;
    - `aggregate` (level global): the same of the server's step, for all images of the cohort together;
    - `first_step` (level local): the gradient of the same client's first batch alone, before any defence. Nobody in the
      federation sees it: a stronger adversary, and an upper bound on `message`.

    Victims are the audit examples that are in, in the batch in question (of a message: in any batch of the round), and
    held by the clients attacked. The n true images of a batch are paired with the m images rebuilt by the Hungarian
    method on squared error; a victim with copies counts with the best of them. Readings of each victim, on images in
    [0, 1]:

    - `psnr`: 10 log10(1 / MSE) in dB, capped at 100, higher is nearer;
    - `margin`: `psnr` minus that of the best prior, in dB. Above 0 the update gave away more than was known before;
      below 0 it may have given away something all the same, since the prior is picked by the truth;
    - `identified`: 1 where some rebuilt image is strictly nearer to the victim than any rebuilt image is to any image
      of the gallery, else 0. Nothing is matched on the truth first, so where the victim is exchangeable with the G
      images of its gallery, chance is 1 / (G + 1). Canaries are, exactly, with the fresh references of their family;
      `setting` states G and `chance`. Examples of the role `typical` are about exchangeable with the population, if
      clients see rows as they are (they are drawn like their holder's labels); `setting` states G. No other kind is
      identified: images that nobody's data look like may well be nearest to plain noise.

    Controls are the out examples of the same clients, scored in the same way and marked `coin=out`: each takes the
    places of its fill-ins in the true batch, together with whatever would be trained on beside it under the same coin
    (copies, near copies), all else being equal, so that the batch in which an example is sought does not depend on its
    coin. (In a batch of more than 256 rows all controls take their places at once, which is faster; other controls are
    then the only difference.) Only a coin decides who is a victim and who a control, so without leakage the difference
    between them has mean 0, whatever the attack, the pairing and the priors.

    Without fill-ins (`exclusion: remove`) each control takes the places of as many base rows of its holder, drawn once
    for each run. The difference is then only about 0: the batch of a control has one row less (or as many as the
    example would take), and so one image less is rebuilt. In batches of 8 digits that alone made 0.02 dB of `psnr` if
    noise was offered for them, and 0.16 dB if other digits were.

    Readings of each attack, without a subject: `label_accuracy` (share of the inferred labels that are right, as a
    multiset; says little where `coverage` is small) beside `label_accuracy.guess` (what equally many of each class
    would have got), `distance` (matching distance reached), `coverage` (m / n).

    Priors, each paired with the batch in the same way, since whoever may offer m images for a victim to choose from
    has an advantage over a single one: grey (0.5 everywhere), the mean of the population, the class means of the
    population for the inferred labels, m random images of the population, and the mean of each canary family. The
    best is taken for each victim by the truth, which favours the priors. No member is in the population or among the
    references.

    `summarise` gives for each attacked round and at FINAL over all of them, by kind: the mean of each metric over
    victims, the mean over controls (`coin=out`), and their difference (`<metric>.difference`, whose setting begins with
    `in-out`; without leakage 0, see above). Intervals (95 %) are Student's over clusters. The clusters are the holders,
    since one example attacked in several runs or rounds, and the examples of one client, are not independent; where
    clustering by run gives the wider interval, that one is taken. `identified` has Wilson's interval with as many
    trials as there are clusters of the scarcer sort, and its difference at least Newcombe's. One cluster has no
    interval (NaN) but for `identified`.

    Fields

    - `attack`: how images are rebuilt.
    - `rounds`: which observed rounds to attack; if left out, the first after round 0 and the last.
    - `victims`: clients attacked in each round and run, drawn from those of the cohort that hold an audit example, in
      or out; sums and the aggregate are scored on the examples of the same clients, as far as they are part of them: a
      sum takes its clients in the same order (`sums.in_order`).
    - `runs`: how many runs are attacked, from run 0 on. With few of them the intervals are wide: two runs alone, whose
      spread has one degree of freedom, resolve next to nothing.
    - `max_images`: largest number of images rebuilt at once; of a larger batch fewer are rebuilt, and each may be
      paired with several true ones.
    - `every`: probe only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to probe.

    Guarantees: who is attacked depends on neither the coins nor how an attack went; nothing is changed.

    Errors: `ComponentError` if the client algorithm has no learning rate, since then an update is no gradient.

    >>> from fedmem.attacks.inverting_gradients import InvertingGradients
    >>> Leakage(attack=InvertingGradients()).levels
    ('local', 'global')

    Reference: Geiping et al. (2020); the comparison with priors follows Usynin, Knolle and Kaissis (2024).
    """

    attack: ReconstructionAttack
    rounds: tuple[Annotated[int, Gt(0)], ...] = ()
    victims: Annotated[int, Gt(0)] = 2
    runs: Annotated[int, Gt(0)] = 4
    max_images: Annotated[int, Gt(0)] = 64
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Attack the chosen transitions of this round, if it is one of the declared ones."""
        first = transitions[0]
        if first.round not in self._declared(context):
            return []
        readings: list[tuple[Transition, Reading]] = []
        for view in VIEWS[first.level]:
            cases = self._cases(view, transitions, context)
            if not cases:
                continue
            places = [case.transition for case in cases]
            # sums of several sizes are about no client
            words = [f"leakage {view}{len(t.clients) if view == 'sum' else ''}" for t in places]
            rngs = [
                context.stream(word, run=t.run, round=t.round, client=t.client)
                for word, t in zip(words, places, strict=True)
            ]
            found = self.attack.reconstruct([case.target for case in cases], rngs)
            shown: dict[str, list[Victim]] = {}
            for case, result in zip(cases, found, strict=True):
                scored = score(case, _checked(case, result), context)
                about = _about_attack(case, result, context) + [r for victim in scored for r in _about_victim(victim)]
                readings += [(case.transition, reading) for reading in about]
                of = f"_{len(case.transition.clients)}" if view == "sum" else ""
                name = f"round_{first.round}/{first.level}/{view}{of}/run_{case.transition.run}"
                shown.setdefault(name, []).extend(v for v in scored if not v.control)
            for name, victims in shown.items():
                if victims:
                    context.keep(name, sheet(victims))
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means by kind and view and what victims have over controls, for each attacked round and at FINAL over all."""
        groups: dict[tuple[str, int, Level, str, str, str], list[_Scored]] = {}
        for one in measurements:
            setting, _, about = one.reading.setting.partition(",holder=")
            holder, _, kind = about.partition(",kind=")
            scored = _Scored(value=one.reading.value, holder=int(holder or one.client), run=one.run)
            for round in (one.round, FINAL):
                key = (one.source, round, one.level, one.reading.metric, setting, kind)
                groups.setdefault(key, []).append(scored)
        found = []
        for (source, round, level, metric, setting, kind), members in groups.items():
            readings = [_mean(metric, members, kind, setting)]
            controls = groups.get((source, round, level, metric, setting + CONTROL, kind))
            if controls:
                readings.append(_difference(metric, members, controls, kind, setting))
            found += [
                Measurement(run=EVERYWHERE, round=round, level=level, client=EVERYWHERE, source=source, reading=reading)
                for reading in readings
            ]
        return found

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
            cohort = sorted({client for t in own for client in _clients(t)})
            picked = self._picked(run, own[0].round, cohort, context)
            attacked = [t for t in own if picked.intersection(_clients(t))]
            found = (self._case(view, transition, picked, context) for transition in attacked)
            cases += [case for case in found if case is not None]
        return cases

    def _picked(self, run: int, round: int, cohort: Sequence[int], context: Context) -> set[int]:
        """The clients attacked: the same at every level of a round, and whatever the coins.

        Sums take their clients in the same order, so that who is attacked alone is in the sums as well.
        """
        audit = context.federation.audit
        order = in_order(context.seed, run, round, cohort, audit)
        holders = order[np.isin(order, audit.holder[audit.active(round)])]
        return set(holders[: self.victims].tolist())

    def _case(self, view: str, transition: Transition, picked: set[int], context: Context) -> Case | None:
        """One attack: its gradient, the true rows behind it, victims and controls; None without either."""
        federation, run = context.federation, transition.run
        if view == "first_step":
            after, rows = context.first_step(transition)
            steps = 1.0
        else:
            clients, round = _clients(transition), transition.round
            held = [context.rows(run, client, round) for client in clients]
            after, rows = transition.sent, np.concatenate([context.used(run, client, round) for client in clients])
            steps = float(np.mean([context.client.num_steps(len(part)) for part in held]))
        audit = federation.audit
        wanted = audit.is_in[run] & np.isin(audit.holder, sorted(picked))
        victims = np.flatnonzero(wanted & np.isin(federation.audit_start + np.arange(len(audit)), rows))
        controls = _controls(transition, sorted(picked.intersection(_clients(transition))), rows, context)
        if not len(victims) and not controls:
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
        return Case(view=view, transition=transition, target=target, rows=rows, victims=victims, controls=controls)


def _clients(transition: Transition) -> tuple[int, ...]:
    """Whose work a transition is."""
    return (transition.client,) if transition.level == "local" else transition.clients


def _controls(transition: Transition, clients: Sequence[int], rows: IntArray, context: Context) -> dict[int, Control]:
    """The out examples of these clients whose own stand-ins are among the rows, with the places of all of them."""
    federation, run = context.federation, transition.run
    audit, found = federation.audit, {}
    subjects = np.repeat(np.arange(len(audit)), audit.copies)
    own = federation.trained == federation.audit_start + subjects
    # Some examples are measured and never trained on: nobody would find them in a batch.
    would_be = np.isin(subjects, subjects[own]) & audit.active(transition.round)[subjects]
    for client in clients:
        slots = np.flatnonzero(would_be & (audit.holder[subjects] == client) & ~audit.is_in[run, subjects])
        stand_ins = federation.fill[run, slots]
        if (stand_ins < 0).any():
            # Whoever was removed left no gap: a base row of the holder gives up its place, in the first step as rarely
            # as a victim has one. With fewer base rows than that some controls are left out, the last ones.
            base = context.stream("leakage controls", run=run, client=client).permutation(federation.base[client])
            cut = subjects[slots[len(base)]] if len(base) < len(slots) else len(audit)
            slots = slots[subjects[slots] < cut]
            stand_ins = base[: len(slots)]
        place = {row: i for i, row in enumerate(rows.tolist())}
        there = np.array([place.get(row, -1) for row in stand_ins.tolist()], dtype=np.int64)
        for subject in dict.fromkeys(subjects[slots].tolist()):
            mine = (subjects[slots] == subject) & (there >= 0)
            control = Control(
                subject=federation.audit_start + subject, places=there[mine], rows=federation.trained[slots[mine]]
            )
            if len(control.own):
                found[subject] = control
    return found


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
    values = {
        "label_accuracy": _overlap(found.labels, truth, classes),
        "label_accuracy.guess": _overlap(np.arange(len(found.labels)) % classes, truth, classes),
        "distance": found.distance,
        "coverage": len(found.inputs) / len(truth),
    }
    return [Reading(metric=metric, value=float(value), setting=case.setting) for metric, value in values.items()]


def _overlap(labels: IntArray, truth: IntArray, classes: int) -> float:
    """The share of the labels that are right, as multisets."""
    counts = (np.bincount(some, minlength=classes) for some in (labels, truth))
    return float(np.minimum(*counts).sum() / len(labels))


def _about_victim(victim: Victim) -> list[Reading]:
    """Readings of one victim or control; the kind comes last in the setting, because a label may hold anything."""
    subject, coin = str(victim.subject), CONTROL if victim.control else ""
    about = f"{coin},holder={victim.holder},kind={victim.kind}"
    setting = victim.case.setting
    readings = [
        Reading(metric="psnr", value=victim.psnr, subject=subject, setting=setting + about),
        Reading(metric="margin", value=victim.psnr - victim.prior_psnr, subject=subject, setting=setting + about),
    ]
    if victim.gallery:
        chance = f",chance=1/{victim.gallery + 1}" if victim.exact else ""
        place = f"{setting},gallery={victim.gallery}{chance}{about}"
        readings.append(Reading(metric="identified", value=victim.identified, subject=subject, setting=place))
    return readings


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """One value and the clusters that it belongs to; the holder is -1 for an attack on a whole cohort."""

    value: float
    holder: int
    run: int


def _values(members: Sequence[_Scored]) -> FloatArray:
    return np.array([one.value for one in members])


def _holders(members: Sequence[_Scored]) -> list[int]:
    return [one.holder for one in members]


def _runs(members: Sequence[_Scored]) -> list[int]:
    return [one.run for one in members]


def _trials(members: Sequence[_Scored]) -> int:
    """How many answers to yes or no these values are worth."""
    return min(len(set(_holders(members))), len(set(_runs(members))))


def _mean(metric: str, members: Sequence[_Scored], kind: str, setting: str) -> Reading:
    """The mean of one metric, with an interval that clusters by holder and by run."""
    values = _values(members)
    value = float(values.mean())
    low, high = mean_interval(values, _holders(members), _runs(members))
    if metric == "identified":
        # All or none identified has no spread, yet says little about the next attack.
        trials = _trials(members)
        low, high = (float(end) for end in wilson(value * trials, trials))
    return _reading(metric, value, low, high, len(values), kind, setting)


def _difference(metric: str, ins: Sequence[_Scored], outs: Sequence[_Scored], kind: str, setting: str) -> Reading:
    """How much higher victims are than controls."""
    first, second = _values(ins), _values(outs)
    ways = ((_holders(ins), _holders(outs)), (_runs(ins), _runs(outs)))
    low, high = difference_interval(first, second, *ways)
    if metric == "identified":
        trials, others = _trials(ins), _trials(outs)
        least, most = newcombe(first.mean() * trials, trials, second.mean() * others, others)
        # An interval of NaN, of one cluster, leaves the other one alone.
        low, high = float(np.fmin(low, least)), float(np.fmax(high, most))
    value, n = float(first.mean() - second.mean()), len(first) + len(second)
    return _reading(f"{metric}.difference", value, low, high, n, kind, f"in-out,{setting}")


def _reading(metric: str, value: float, low: float, high: float, n: int, kind: str, setting: str) -> Reading:
    """A summary, its interval within the bounds of the metric."""
    least, most = RANGES.get(metric, (-np.inf, np.inf))
    low, high = (float(np.clip(end, least, most)) for end in (low, high))
    return Reading(metric=metric, value=value, low=low, high=high, n=n, subject=kind, setting=setting)
