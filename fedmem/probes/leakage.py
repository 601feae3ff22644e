"""What an update gives away: reconstruction of audit examples from messages, aggregates and first steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from fedmem.components import Context, GradientTarget, Reconstruction, ReconstructionAttack
from fedmem.errors import ComponentError, RunError
from fedmem.image_metrics import assign, psnr, squared_errors
from fedmem.probes._clusters import mean_interval
from fedmem.statistics import wilson
from fedmem.types import EVERYWHERE, FINAL, IntArray, Level, Measurement, Params, Reading, Transition

KEPT = 4
"""Victims of each kind that are kept as pictures, for each round and view: the first ones, not the best ones."""

KNOWS = {"message": "lr+steps+count", "aggregate": "lr+steps+count", "first_step": "lr+batch_size+first_step"}
"""What the adversary of each view is granted besides the model before and after. Labels are always inferred."""


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
    multiset), `distance` (matching distance reached), `coverage` (m / n).

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
            scored = [_score(case, result, context) for case, result in zip(cases, found, strict=True)]
            readings += [
                (case.transition, r) for case, score in zip(cases, scored, strict=True) for r in score.readings
            ]
            sheet = _sheet([picture for score in scored for picture in score.pictures])
            context.keep(f"leakage/round_{first.round}/{first.level}/{view}", sheet)
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

    def _cases(self, view: str, transitions: Sequence[Transition], context: Context) -> list[_Case]:
        """What to attack in this view."""
        cases = []
        for run in sorted({t.run for t in transitions if t.run < self.runs}):
            own = [t for t in transitions if t.run == run]
            cohort = {client for t in own for client in (t.clients if view == "aggregate" else (t.client,))}
            picked = self._picked(run, own[0].round, cohort, context)
            for transition in own:
                if view == "aggregate":
                    case = self._case(view, transition, sorted(transition.clients), picked, context)
                elif transition.client in picked:
                    case = self._case(view, transition, [transition.client], picked, context)
                else:
                    case = None
                if case is not None:
                    cases.append(case)
        return cases

    def _picked(self, run: int, round: int, cohort: set[int], context: Context) -> set[int]:
        """The clients attacked: the same at every level of a round."""
        audit = context.federation.audit
        holders = np.unique(audit.holder[audit.is_in[run]])
        candidates = np.intersect1d(holders, sorted(cohort))
        rng = context.stream("leakage victims", run=run, round=round)
        return set(rng.permutation(candidates)[: self.victims].tolist())

    def _case(
        self, view: str, transition: Transition, clients: list[int], picked: set[int], context: Context
    ) -> _Case | None:
        """One attack: its gradient, the true rows behind it and the victims among them; None without victims."""
        federation, run = context.federation, transition.run
        held = [context.rows(run, client) for client in clients]
        if view == "first_step":
            after, rows = context.first_step(transition)
            steps = 1.0
        else:
            after, rows = transition.sent, np.concatenate([*held, np.empty(0, dtype=np.int64)])
            steps = float(np.mean([context.client.num_steps(len(part)) for part in held])) if held else 0.0
        audit = federation.audit
        wanted = audit.is_in[run] & np.isin(audit.holder, sorted(picked))
        victims = np.flatnonzero(wanted & np.isin(federation.audit_start + np.arange(len(audit)), rows))
        if not len(victims) or not steps:
            return None
        count = min(len(rows), self.max_images)
        target = GradientTarget(
            model=federation.model,
            params=transition.before,
            gradient=_gradient(transition.before, after, steps, context),
            num_images=count,
            input_shape=federation.store.inputs.shape[1:],
            num_classes=federation.num_classes,
            knows=KNOWS[view],
        )
        return _Case(view=view, transition=transition, target=target, rows=rows, victims=victims)


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One attack and its truth: `rows` (n,) of the store in the batch, `victims` positions in the audit set."""

    view: str
    transition: Transition
    target: GradientTarget
    rows: IntArray
    victims: IntArray

    @property
    def setting(self) -> str:
        return f"view={self.view},knows={self.target.knows},labels=inferred"


@dataclass(frozen=True, kw_only=True)
class _Score:
    readings: list[Reading] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)


def _gradient(before: Params, after: Params, steps: float, context: Context) -> Params:
    """The mean gradient that would have led from one to the other by plain descent, weight decay taken off."""
    lr = getattr(context.client, "lr", None)
    if lr is None:
        raise ComponentError(
            "client",
            f"the probe leakage reads an update as a gradient times the learning rate, but {type(context.client).__name__} "
            "has no field `lr`; use a client algorithm that has one, or leave the probe out",
        )
    decay = float(getattr(context.client, "weight_decay", 0.0))
    return {
        name: (before[name].double() - value.double()) / (lr * steps) - decay * before[name].double()
        for name, value in after.items()
    }


def _score(case: _Case, found: Reconstruction, context: Context) -> _Score:
    """Readings and pictures of one attack."""
    federation = context.federation
    truth = federation.store.take(case.rows)
    if len(found.inputs) == 0 or not np.isfinite(found.inputs).all():
        raise RunError(
            f"round {case.transition.round}, run {case.transition.run}, client {case.transition.client}: the attack on "
            f"view {case.view} returned {len(found.inputs)} images, not all of them finite numbers"
        )
    errors, chosen = _paired(found.inputs, truth.inputs)
    rivals = [(batch, *_paired(batch, truth.inputs)) for batch in _priors(case, found, context)]
    score = _Score()
    true_counts = np.bincount(truth.targets, minlength=federation.num_classes)
    right = np.minimum(true_counts, np.bincount(found.labels, minlength=federation.num_classes)).sum()
    attack = {
        "label_accuracy": right / len(found.labels),
        "distance": found.distance,
        "coverage": len(found.inputs) / len(truth),
    }
    score.readings.extend(
        Reading(metric=metric, value=float(value), setting=case.setting) for metric, value in attack.items()
    )
    for victim in case.victims.tolist():
        kind = str(federation.audit.kind[victim])
        places = np.flatnonzero(case.rows == federation.audit_start + victim)
        image = federation.audit.examples.inputs[victim]
        best = places[errors[places].argmin()]
        rebuilt = found.inputs[chosen[best]]
        prior_errors = [rival_errors[places].min() for _, rival_errors, _ in rivals]
        batch, rival_errors, rival_chosen = rivals[int(np.argmin(prior_errors))]
        prior = batch[rival_chosen[places[rival_errors[places].argmin()]]]
        own, others = float(psnr(errors[best])), float(psnr(min(prior_errors)))

        def add(metric: str, value: float, detail: str = "", victim: int = victim, kind: str = kind) -> None:
            setting = f"{case.setting}{detail},kind={kind}"
            score.readings.append(Reading(metric=metric, value=value, subject=str(victim), setting=setting))

        add("psnr", own)
        add("margin", own - others)
        gallery = _gallery(kind, context)
        if len(gallery):
            nearest = squared_errors(gallery, rebuilt[None]).min()
            add("identified", float(errors[best] < nearest), detail=f",gallery={len(gallery)}")
        score.pictures.append(
            {
                "original": image,
                "reconstruction": rebuilt,
                "prior": prior,
                "kind": kind,
                "setting": case.setting,
                "subject": victim,
                "run": case.transition.run,
                "client": int(federation.audit.holder[victim]),
                "psnr": own,
                "prior_psnr": others,
            }
        )
    return score


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
    return Reading(metric=metric, value=value, low=low, high=high, n=len(values), subject=kind, setting=setting)


def _paired(images: NDArray[np.float32], truth: NDArray[np.float32]) -> tuple[NDArray[np.float64], IntArray]:
    """(n,) the error of every true image with the image that stands for it, and which that is."""
    errors = squared_errors(images, truth)
    chosen = assign(errors)
    return errors[chosen, np.arange(len(truth))], chosen


def _priors(case: _Case, found: Reconstruction, context: Context) -> list[NDArray[np.float32]]:
    """Batches of images that somebody could offer who has not seen the gradient, its labels apart."""
    federation, place = context.federation, case.transition
    population = federation.population
    batches = [np.full((1, *case.target.input_shape), 0.5, dtype=np.float32)]
    batches += [references.inputs.mean(axis=0, keepdims=True) for references in federation.references]
    if len(population):
        mean = population.inputs.mean(axis=0)
        of_class = {
            label: population.inputs[population.targets == label].mean(axis=0)
            for label in np.unique(population.targets).tolist()
        }
        rng = context.stream("leakage population", run=place.run, round=place.round, client=place.client)
        batches.append(mean[None])
        batches.append(np.stack([of_class.get(label, mean) for label in found.labels.tolist()]))
        batches.append(population.inputs[rng.permutation(len(population))[: len(found.inputs)]])
    return batches


def _gallery(kind: str, context: Context) -> NDArray[np.float32]:
    """Images like the victim that nobody trained on."""
    families = {references.family: references.inputs for references in context.federation.references}
    return families.get(kind, context.federation.population.inputs)


def _sheet(pictures: Sequence[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """The first few pictures of each kind as arrays, one entry for each."""
    kinds: dict[str, int] = {}
    kept = []
    for picture in pictures:
        kinds[picture["kind"]] = kinds.get(picture["kind"], 0) + 1
        if kinds[picture["kind"]] <= KEPT:
            kept.append(picture)
    return {key: np.array([picture[key] for picture in kept]) for key in kept[0]}
