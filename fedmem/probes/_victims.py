"""What became of the victims of one reconstruction attack, beside what the best prior would have got."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.components import Context, GradientTarget, Reconstruction
from fedmem.image_metrics import assign, psnr, squared_errors
from fedmem.types import FloatArray, IntArray, Transition

Images = NDArray[np.float32]

KEPT = 4
"""Victims of each kind kept as pictures, for each round, view and run: the first ones, not the best ones."""


ALONE = 256
"""Rows of the largest batch into which controls are put one at a time; a larger one is paired too slowly for that."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """What an out example would change in a batch, were it in: `places` (k,) of the batch and the `rows` (k,) there.

    Rows are those of the store: that of the example, `subject`, as often as it is copied, and near copies beside it.
    """

    subject: int
    places: IntArray
    rows: IntArray

    @property
    def own(self) -> IntArray:
        """The places of the example itself, in which it is sought."""
        found: IntArray = self.places[self.rows == self.subject]
        return found


@dataclass(frozen=True, kw_only=True)
class Case:
    """One attack and its truth: `rows` (n,) of the store in the batch, `victims` positions in the audit set.

    `controls` maps the position of each out example to what it would change in the batch.
    """

    view: str
    transition: Transition
    target: GradientTarget
    rows: IntArray
    victims: IntArray
    controls: Mapping[int, Control]

    @property
    def setting(self) -> str:
        """The view and what its adversary knows, for every reading."""
        return f"view={self.view},knows={self.target.knows},labels=inferred"


@dataclass(frozen=True, kw_only=True)
class Victim:
    """One audit example, the image that stands for it, and the best prior; `identified` is NaN without a gallery.

    `control` says that it is an out example, which nobody trained on, `exact` that the example is exchangeable with its
    gallery.
    """

    case: Case
    subject: int
    kind: str
    holder: int
    control: bool
    original: Images
    reconstruction: Images
    prior: Images
    psnr: float
    prior_psnr: float
    identified: float
    gallery: int
    exact: bool


def score(case: Case, found: Reconstruction, context: Context) -> list[Victim]:
    """Pair what was rebuilt, and every prior, with the batch, and look up the victims, then the controls.

    A control is looked up in the true batch with its own rows in their places, all others being what they are. So the
    batch in which an example is sought is the same whether its coin fell on in or on out.
    """
    federation = context.federation
    audit, store = federation.audit, federation.store.inputs
    truth = store[case.rows]
    batches = [_Batch.of(images, truth) for images in (found.inputs, *_priors(case, found, context))]
    places = {subject: np.flatnonzero(case.rows == federation.audit_start + subject) for subject in case.victims}
    together = []
    if len(case.rows) > ALONE and case.controls:
        for control in case.controls.values():
            truth[control.places] = store[control.rows]
        together = [_Batch.of(batch.images, truth) for batch in batches]
    galleries: dict[str, tuple[int, float]] = {}
    victims = []
    for subject, at in [*places.items(), *((subject, control.own) for subject, control in case.controls.items())]:
        out, original = case.controls.get(subject), audit.examples.inputs[subject]
        looked = together or [batch.swapped(out.places, store[out.rows]) for batch in batches] if out else batches
        own, *guesses = (batch.best(at) for batch in looked)
        prior, prior_error = min(guesses, key=lambda pair: pair[1])
        kind, role = str(audit.kind[subject]), str(audit.role[subject])
        if kind not in galleries:
            galleries[kind] = _nearest(found.inputs, _gallery(kind, role, context))
        gallery, nearest = galleries[kind]
        near = float(squared_errors(found.inputs, original[None]).min())
        victims.append(
            Victim(
                case=case,
                subject=int(subject),
                kind=kind,
                holder=int(audit.holder[subject]),
                control=out is not None,
                original=original,
                reconstruction=own[0],
                prior=prior,
                psnr=float(psnr(np.float64(own[1]))),
                prior_psnr=float(psnr(np.float64(prior_error))),
                # A tie identifies nobody.
                identified=float(near < nearest) if gallery else math.nan,
                gallery=gallery,
                exact=role == "canary",
            )
        )
    return victims


def sheet(victims: Sequence[Victim]) -> dict[str, NDArray[Any]]:
    """The first few victims of each kind as arrays, one entry for each victim."""
    kept = [v for i, v in enumerate(victims) if sum(other.kind == v.kind for other in victims[:i]) < KEPT]
    return {
        "original": np.stack([v.original for v in kept]),
        "reconstruction": np.stack([v.reconstruction for v in kept]),
        "prior": np.stack([v.prior for v in kept]),
        "kind": np.array([v.kind for v in kept]),
        "setting": np.array([v.case.setting for v in kept]),
        "subject": np.array([v.subject for v in kept]),
        "run": np.array([v.case.transition.run for v in kept]),
        "psnr": np.array([v.psnr for v in kept]),
        "prior_psnr": np.array([v.prior_psnr for v in kept]),
    }


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Images offered, (m, n) errors between each and every true one, and for every true one which stands for it."""

    images: Images
    errors: FloatArray
    chosen: IntArray

    @staticmethod
    def of(images: Images, truth: Images) -> _Batch:
        """Pair a batch with the true one so that the total error is least."""
        errors = squared_errors(images, truth)
        return _Batch(images=images, errors=errors, chosen=assign(errors))

    def swapped(self, places: IntArray, others: Images) -> _Batch:
        """The same with other true images in these places."""
        errors = self.errors.copy()
        errors[:, places] = squared_errors(self.images, others)
        return _Batch(images=self.images, errors=errors, chosen=assign(errors))

    def best(self, places: IntArray) -> tuple[Images, float]:
        """The nearest stand-in at these places of the batch, the copies of one example, and its error."""
        errors = self.errors[self.chosen[places], places]
        return self.images[self.chosen[places[errors.argmin()]]], float(errors.min())


def _nearest(images: Images, gallery: Images) -> tuple[int, float]:
    """How many images the gallery has, and the least error between any of them and any of those rebuilt."""
    return len(gallery), float(squared_errors(images, gallery).min()) if len(gallery) else math.nan


def _priors(case: Case, found: Reconstruction, context: Context) -> list[Images]:
    """Batches that somebody could offer who has not seen the gradient, its labels apart."""
    federation, place = context.federation, case.transition
    batches = [np.full((1, *case.target.input_shape), 0.5, dtype=np.float32)]
    batches += [references.inputs.mean(axis=0, keepdims=True) for references in federation.references]
    population = federation.population
    if len(population):
        mean = population.inputs.mean(axis=0)
        classes = np.unique(population.targets).tolist()
        of_class = {label: population.inputs[population.targets == label].mean(axis=0) for label in classes}
        rng = context.stream("leakage population", run=place.run, round=place.round, client=place.client)
        batches.append(mean[None])
        batches.append(np.stack([of_class.get(label, mean) for label in found.labels.tolist()]))
        batches.append(population.inputs[rng.permutation(len(population))[: len(found.inputs)]])
    return batches


def _gallery(kind: str, role: str, context: Context) -> Images:
    """Images that the victim is exchangeable with and that nobody trained on; none where there are no such images."""
    federation = context.federation
    families = {references.family: references.inputs for references in federation.references}
    if role == "typical" and not federation.shifted:
        return federation.population.inputs
    return families.get(kind, federation.population.inputs[:0])
