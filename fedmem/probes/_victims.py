"""What became of the victims of one reconstruction attack, beside what the best prior would have got."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.components import Context, GradientTarget, Reconstruction
from fedmem.image_metrics import assign, psnr, squared_errors
from fedmem.types import FloatArray, IntArray, Transition

Images = NDArray[np.float32]

KEPT = 4
"""Victims of each kind that are kept as pictures, for each round and view: the first ones, not the best ones."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One attack and its truth: `rows` (n,) of the store in the batch, `victims` positions in the audit set."""

    view: str
    transition: Transition
    target: GradientTarget
    rows: IntArray
    victims: IntArray

    @property
    def setting(self) -> str:
        """The view and what its adversary knows, for every reading."""
        return f"view={self.view},knows={self.target.knows},labels=inferred"


@dataclass(frozen=True, kw_only=True)
class Victim:
    """One audit example, the image that stands for it, and the best prior; `identified` is NaN without a gallery."""

    case: Case
    subject: int
    kind: str
    original: Images
    reconstruction: Images
    prior: Images
    psnr: float
    prior_psnr: float
    identified: float
    gallery: int


def score(case: Case, found: Reconstruction, context: Context) -> list[Victim]:
    """Pair what was rebuilt, and every prior, with the true batch, and look the victims up."""
    federation = context.federation
    truth = federation.store.inputs[case.rows]
    own = _paired(found.inputs, truth)
    priors = [_paired(batch, truth) for batch in _priors(case, found, context)]
    victims = []
    for subject in case.victims.tolist():
        kind = str(federation.audit.kind[subject])
        copies = np.flatnonzero(case.rows == federation.audit_start + subject)
        rebuilt, error = own.best(copies)
        prior, prior_error = min((batch.best(copies) for batch in priors), key=lambda pair: pair[1])
        gallery = _gallery(kind, context)
        # Nearer than every image of the gallery; a tie identifies nobody.
        identified = float(error < squared_errors(gallery, rebuilt[None]).min()) if len(gallery) else math.nan
        victims.append(
            Victim(
                case=case,
                subject=subject,
                kind=kind,
                original=federation.audit.examples.inputs[subject],
                reconstruction=rebuilt,
                prior=prior,
                psnr=float(psnr(np.float64(error))),
                prior_psnr=float(psnr(np.float64(prior_error))),
                identified=identified,
                gallery=len(gallery),
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
class _Pairs:
    """For every true image the image that stands for it, and its error."""

    images: Images
    errors: FloatArray

    def best(self, places: IntArray) -> tuple[Images, float]:
        """The nearest stand-in at these places of the batch, the copies of one example, and its error."""
        place = places[self.errors[places].argmin()]
        return self.images[place], float(self.errors[place])


def _paired(images: Images, truth: Images) -> _Pairs:
    """Pair a batch with the true one so that the total error is least."""
    errors = squared_errors(images, truth)
    chosen = assign(errors)
    return _Pairs(images=images[chosen], errors=errors[chosen, np.arange(len(truth))])


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


def _gallery(kind: str, context: Context) -> Images:
    """Images like the victim that nobody trained on."""
    families = {references.family: references.inputs for references in context.federation.references}
    return families.get(kind, context.federation.population.inputs)
