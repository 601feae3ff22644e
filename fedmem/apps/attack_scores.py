"""How near reconstructed inputs are to the true ones, compared with guesses that need no update."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmem.modalities.numbers import psnr, squared_errors
from fedmem.modalities.pairing import assign

Images = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Score:
    """How close one true example was reconstructed.

    `psnr` is that of the reconstruction assigned to it, in dB; higher is closer. `margin` is the PSNR minus that of the
    baseline guess. `identified` is 1 where some reconstruction is strictly nearer to it than any is to the gallery,
    else 0; NaN without a gallery. `place` is that of the assigned reconstruction.
    `prior` is the best guess without the update.
    """

    psnr: float
    margin: float
    identified: float
    place: int
    prior: Images


def scores(images: Images, truth: Images, gallery: Images, rng: np.random.Generator) -> list[Score]:
    """Each true image with the reconstruction that is assigned to it (Hungarian method), against priors.

    Priors are grey, the mean of the gallery, and as many images of the gallery as were reconstructed.

    The baseline guess is picked by the truth, which favours it. An image that is exchangeable with the
    G images of the gallery is identified with probability 1 / (G + 1) without any leakage.
    """
    guesses = [np.full((1, *truth.shape[1:]), 0.5, dtype=np.float32)]
    if len(gallery):
        guesses += [gallery.mean(axis=0, keepdims=True), gallery[rng.permutation(len(gallery))[: len(images)]]]
    errors = squared_errors(images, truth)
    assignment = assign(errors)
    priors = [(batch, squared_errors(batch, truth)) for batch in guesses]
    matched = [(batch, table, assign(table)) for batch, table in priors]
    nearest = float(squared_errors(images, gallery).min()) if len(gallery) else np.nan
    result = []
    for j in range(len(truth)):
        lowest_error, batch, place = min(
            ((float(table[pick[j], j]), batch, int(pick[j])) for batch, table, pick in matched),
            key=lambda match: match[0],
        )
        decibels = float(psnr(np.float64(errors[assignment[j], j])))
        result.append(
            Score(
                psnr=decibels,
                margin=decibels - float(psnr(np.float64(lowest_error))),
                identified=float(errors[:, j].min() < nearest) if len(gallery) else np.nan,
                place=int(assignment[j]),
                prior=batch[place],
            )
        )
    return result
