"""What became of the victims of one reconstruction attack, beside what the best prior would have got."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.components import Context, Reconstruction
from fedmem.image_metrics import assign, nearest, psnr, squared_errors, ssim
from fedmem.probes._cases import Case
from fedmem.probes._galleries import Gallery, Images, gallery, priors
from fedmem.table_metrics import right as correct
from fedmem.table_metrics import tolerances, usual_row
from fedmem.types import FloatArray, IntArray

KEPT = 4
"""Victims of each kind kept as pictures, for each round, view and run: the first ones, not the best ones."""

ALONE = 256
"""Rows of the largest batch into which controls are put one at a time; a larger one is paired too slowly for that."""


@dataclass(frozen=True, kw_only=True)
class Victim:
    """One audit example, the image that stands for it, and the best prior.

    `control` says that it is an out example, which nobody trained on. `identified` among `gallery` images, the first
    `peers` of which are like it; NaN without any. `mse` and `prior_mse` are mean squared errors; `ssim` is NaN where
    inputs are no images of at least 6 by 6, `cells` and `cells_gain` where they are no rows of a table.
    """

    case: Case
    subject: int
    kind: str
    holder: int
    control: bool
    original: Images
    reconstruction: Images
    prior: Images
    mse: float
    prior_mse: float
    ssim: float
    cells: float
    cells_gain: float
    identified: float
    gallery: int
    peers: int

    @property
    def psnr(self) -> float:
        """In dB, of the image that stands for it."""
        return float(psnr(np.float64(self.mse)))

    @property
    def prior_psnr(self) -> float:
        """In dB, of the best prior."""
        return float(psnr(np.float64(self.prior_mse)))

    @property
    def margin(self) -> float:
        """In dB, over the best prior."""
        return self.psnr - self.prior_psnr


def score(case: Case, found: Reconstruction, context: Context, most: int = 2000) -> list[Victim]:
    """Pair what was rebuilt, and every prior, with the batch, and look up the victims, then the controls.

    A control is looked up in the true batch with its own rows in their places, all others being what they are. So the
    batch in which an example is sought is the same whether its coin fell on in or on out. `most` images are in a
    gallery.
    """
    federation = context.federation
    audit, store = federation.audit, federation.store.inputs
    truth = store[case.rows]
    batches = [_Batch.of(images, truth) for images in (found.inputs, *priors(case, found, context))]
    places = {int(subject): np.flatnonzero(case.rows == federation.audit_start + subject) for subject in case.victims}
    together = []
    if len(case.rows) > ALONE and case.controls:
        for control in case.controls.values():
            truth[control.places] = store[control.rows]
        together = [_Batch.of(batch.images, truth) for batch in batches]
    looked_up = []
    for subject, at in [*places.items(), *((subject, control.own) for subject, control in case.controls.items())]:
        out = case.controls.get(subject)
        looked = together or [batch.swapped(out.places, store[out.rows]) for batch in batches] if out else batches
        own, *guesses = (batch.best(at) for batch in looked)
        looked_up.append((subject, own, min(guesses, key=lambda pair: pair[1])))
    originals = audit.examples.inputs[[subject for subject, _, _ in looked_up]]
    alike = ssim(np.stack([own for _, (own, _), _ in looked_up]), originals).tolist() if looked_up else []
    right = _cells(np.stack([own for _, (own, _), _ in looked_up]), originals, context) if looked_up else originals
    galleries: dict[str, tuple[Gallery, float]] = {}
    victims = []
    for (subject, own, guess), original, likeness, cells in zip(looked_up, originals, alike, right, strict=True):
        kind = str(audit.kind[subject])
        if kind not in galleries:
            images = gallery(kind, str(audit.role[subject]), case, most, context)
            galleries[kind] = images, nearest(found.inputs, images.images)
        others, bound = galleries[kind]
        near = float(squared_errors(found.inputs, original[None]).min())
        victims.append(
            Victim(
                case=case,
                subject=subject,
                kind=kind,
                holder=int(audit.holder[subject]),
                control=subject in case.controls,
                original=original,
                reconstruction=own[0],
                prior=guess[0],
                mse=own[1],
                prior_mse=guess[1],
                ssim=likeness,
                cells=float(cells[0]),
                cells_gain=float(cells[0] - cells[1]),
                # A tie identifies nobody.
                identified=float(near < bound) if others.peers else math.nan,
                gallery=len(others.images),
                peers=others.peers,
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
        "identified": np.array([v.identified for v in kept]),
        "psnr": np.array([v.psnr for v in kept]),
        "prior_psnr": np.array([v.prior_psnr for v in kept]),
    }


def _cells(found: Images, truth: Images, context: Context) -> FloatArray:
    """(n, 2) the share of right cells of each row of a table, and that of the usual row; NaN where there is none."""
    blocks, population = context.federation.blocks, context.federation.population.inputs
    if not blocks or not len(population):
        return np.full((len(found), 2), np.nan)
    tolerance, usual = tolerances(population, blocks), usual_row(population, blocks)
    pairs = zip(found, truth, strict=True)
    return np.array(
        [[correct(one[None], true[None], blocks, tolerance).mean() for one in (own, usual[0])] for own, true in pairs]
    )


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
