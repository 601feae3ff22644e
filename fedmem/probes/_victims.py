"""The victims of one reconstruction attack, compared with the baseline guess."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.attack import Reconstruction
from fedmem.contracts.federation import Federation
from fedmem.contracts.probe import Context
from fedmem.modalities.modality import Modality, Rows
from fedmem.modalities.pairing import assign
from fedmem.probes._cases import Case, is_example_itself
from fedmem.probes._galleries import Gallery, gallery

KEPT = 4
"""Victims of each kind kept as images, for each round, view and run: the first ones, not the best ones."""

ALONE = 256
"""Rows of the largest batch into which controls are put one at a time; a larger one is paired too slowly for that."""


@dataclass(frozen=True, kw_only=True)
class Victim:
    """One audit example, the image or text that stands for it, and the baseline guess.

    `control` says that it is an out example, which no client trained on. `identified` among `gallery` others, the first
    `peers` of which are like it; NaN without any. `values` are all other readings, the telling ones first.
    """

    case: Case
    subject: int
    kind: str
    owner: int
    control: bool
    original: Rows
    reconstruction: Rows
    prior: Rows
    values: Mapping[str, float]
    identified: float
    gallery: int
    peers: int


def score(case: Case, reconstruction: Reconstruction, context: Context, max_gallery: int = 2000) -> list[Victim]:
    """Pair what was reconstructed, and every prior, with the batch, and look up the victims, then the controls.

    A control is looked up in the true batch with its own rows in their places, all others being what they are. So the
    batch in which an example is sought is the same whether its coin fell on in or on out. `max_gallery` images are in a
    gallery.
    """
    federation = context.federation
    audit, modality = federation.audit, federation.modality

    def rows_at(rows: IntArray) -> Rows:
        return modality.comparison_rows(federation.store.inputs[rows], federation.store.targets[rows])

    reconstructions, truth = modality.comparison_rows(reconstruction.inputs, reconstruction.labels), rows_at(case.rows)
    place = case.transition
    rng = context.stream("leakage population", run=place.run, round_number=place.round, client=place.client)
    shape = case.target.input_shape
    guesses_of = modality.guesses(reconstruction, shape, federation.references, federation.population, rng)
    batches = [_Batch.of(rows, truth, modality) for rows in (reconstructions, *guesses_of)]
    together = []
    if len(case.rows) > ALONE and case.controls:
        for control in case.controls.values():
            truth[control.places] = rows_at(control.rows)
        together = [_Batch.of(batch.images, truth, modality) for batch in batches]
    looked_up = []
    for subject, places in _places(case, context):
        out = case.controls.get(subject)
        looked = (
            together or [batch.with_truth(out.places, rows_at(out.rows), modality) for batch in batches]
            if out
            else batches
        )
        best, *guesses = (batch.best_match(places) for batch in looked)
        looked_up.append((subject, best, min(guesses, key=lambda pair: pair[1])))
    if not looked_up:
        return []
    subjects = [subject for subject, _, _ in looked_up]
    originals = modality.comparison_rows(audit.examples.inputs[subjects], audit.examples.targets[subjects])
    values = modality.readings(
        np.stack([best for _, (best, _), _ in looked_up]),
        np.stack([guess for _, _, (guess, _) in looked_up]),
        originals,
        np.array([error for _, (_, error), _ in looked_up]),
        np.array([error for _, _, (_, error) in looked_up]),
        federation.population,
    )
    galleries: dict[str, tuple[Gallery, float]] = {}
    victims = []
    for (subject, best, guess), original, readings in zip(looked_up, originals, values, strict=True):
        kind = str(audit.kind[subject])
        if kind not in galleries:
            images = gallery(kind, str(audit.role[subject]), case, max_gallery, context)
            galleries[kind] = images, modality.nearest_error(reconstructions, images.images)
        others, bound = galleries[kind]
        near = float(modality.errors(reconstructions, original[None]).min())
        victims.append(
            Victim(
                case=case,
                subject=subject,
                kind=kind,
                owner=int(audit.owner[subject]),
                control=subject in case.controls,
                original=original,
                reconstruction=best[0],
                prior=guess[0],
                values=readings,
                # A tie identifies no victim.
                identified=float(near < bound) if others.peers else math.nan,
                gallery=len(others.images),
                peers=others.peers,
            )
        )
    return victims


def _places(case: Case, context: Context) -> list[tuple[int, IntArray]]:
    """Where in the batch each victim, and then each control, is sought."""
    federation = context.federation
    is_itself, subject = is_example_itself(federation), federation.audit.subject
    victims = [
        (example, np.flatnonzero(np.isin(case.rows, federation.trained_rows[is_itself & (subject == example)])))
        for example in case.victims.tolist()
    ]
    return [*victims, *((example, control.example_rows) for example, control in case.controls.items())]


def sheet(victims: Sequence[Victim], federation: Federation) -> dict[str, NDArray[Any]]:
    """The first few victims of each kind as arrays, one entry for each victim."""
    first_victims = [v for i, v in enumerate(victims) if sum(other.kind == v.kind for other in victims[:i]) < KEPT]
    parts = {
        "original": np.stack([v.original for v in first_victims]),
        "reconstruction": np.stack([v.reconstruction for v in first_victims]),
        "prior": np.stack([v.prior for v in first_victims]),
    }
    return {
        **federation.modality.report_arrays(parts, [v.values for v in first_victims]),
        "modality": np.full(len(first_victims), federation.modality.kind),
        "kind": np.array([v.kind for v in first_victims]),
        "labels": np.array([str(v.case.labels) for v in first_victims]),
        "subject": np.array([v.subject for v in first_victims]),
        "identified": np.array([v.identified for v in first_victims]),
    }


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Images of a reconstruction or guess, (m, n) errors to the true ones, and the match of each true one."""

    images: Rows
    errors: FloatArray
    assignment: IntArray

    @staticmethod
    def of(images: Rows, truth: Rows, modality: Modality) -> _Batch:
        """Pair a batch with the true one so that the total error is least."""
        errors = modality.errors(images, truth)
        return _Batch(images=images, errors=errors, assignment=assign(errors))

    def with_truth(self, places: IntArray, others: Rows, modality: Modality) -> _Batch:
        """The batch with other true images in these places."""
        errors = self.errors.copy()
        errors[:, places] = modality.errors(self.images, others)
        return _Batch(images=self.images, errors=errors, assignment=assign(errors))

    def best_match(self, places: IntArray) -> tuple[Rows, float]:
        """The nearest stand-in at these places of the batch, the copies of one example, and its error."""
        errors = self.errors[self.assignment[places], places]
        return self.images[self.assignment[places[errors.argmin()]]], float(errors.min())
