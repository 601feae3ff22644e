"""Inputs that are numbers in [0, 1]: errors, decibels, and what images, tables and series have in common."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.attack import Reconstruction
from fedmem.contracts.audit_set import References
from fedmem.contracts.data import Examples
from fedmem.modalities.modality import Modality, Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAP = 100.0
"""The largest PSNR reported, in dB: a mean squared error of 1e-10, about what float32 can tell from 0."""


def squared_errors(images: NDArray[np.float32], truth: NDArray[np.float32]) -> FloatArray:
    """(m, n) mean squared error of every one of m images with every one of n true ones.

    Computed from the differences themselves, so that equal images have an error of exactly 0.
    """
    first = images.reshape(len(images), -1).astype(np.float64)
    second = truth.reshape(len(truth), -1).astype(np.float64)
    return np.stack([np.square(first - row).mean(axis=1) for row in second], axis=1)


def nearest_error_of(images: NDArray[np.float32], gallery: NDArray[np.float32]) -> float:
    """The least mean squared error between any of m images and any of G images of a gallery; NaN where either has none.

    Candidates come from products, which round. The error of each candidate is then that of `squared_errors`, so that
    ties with others are ties to the last bit.

    >>> nearest_error_of(np.zeros((2, 4), np.float32), np.array([[1.0] * 4, [0.5] * 4], np.float32))
    0.25
    """
    if not len(images) or not len(gallery):
        return float("nan")
    first = images.reshape(len(images), -1).astype(np.float64)
    second = gallery.reshape(len(gallery), -1).astype(np.float64)
    closest = (np.square(second).sum(axis=1) - 2.0 * first @ second.T).argmin(axis=1)
    return float(np.square(first - second[closest]).mean(axis=1).min())


def psnr(errors: FloatArray | np.float64) -> FloatArray:
    """Peak signal-to-noise ratio in dB of images in [0, 1]: `10 log10(1 / MSE)`, per image, higher is nearer.

    Capped at 100 dB, so that one exact image does not make a mean infinite; an error of NaN stays NaN.

    >>> [round(float(value), 6) for value in psnr(np.array([0.01, 0.25, 0.0]))]
    [20.0, 6.0206, 100.0]
    """
    return np.asarray(-10.0 * np.log10(np.maximum(errors, 10.0 ** (-CAP / 10.0))), dtype=np.float64)


class Numbers(Modality, ABC):
    """The base of modalities of numbers: reconstructions are compared by squared error, and reported in dB.

    Readings of each example:

    - `margin`: PSNR of the reconstruction minus that of the baseline guess, in dB, above 0 is better than a guess;
    - `beats_prior`: 1 where the error is below that of the guess, else 0;
    - `psnr` in dB, at most 100; `mse`, the mean squared error, 0..1;
    - further ones by `details`.
    """

    similarity: ClassVar[str] = "psnr"
    unit: ClassVar[str] = "dB"

    def comparison_rows(self, inputs: Rows, targets: IntArray | None) -> Rows:
        """The inputs."""
        return inputs

    def errors(self, rows: Rows, truth: Rows) -> FloatArray:
        """Mean squared errors."""
        return squared_errors(rows, truth)

    def distances(self, rows: Rows, truth: Rows) -> FloatArray:
        """Root mean squared errors."""
        return np.sqrt(self.errors(rows, truth)) if len(truth) else np.zeros((len(rows), 0))

    def nearest_error(self, rows: Rows, gallery: Rows) -> float:
        """The least mean squared error."""
        return nearest_error_of(rows, gallery)

    def guesses(
        self,
        reconstruction: Reconstruction,
        shape: tuple[int, ...],
        references: Sequence[References],
        population: Examples,
        rng: np.random.Generator,
    ) -> list[Rows]:
        """0.5 everywhere; means of canary families, of the population and of its classes; members of the population."""
        batches: list[Rows] = [np.full((1, *shape), 0.5, dtype=np.float32)]
        batches += [family.inputs.mean(axis=0, keepdims=True) for family in references]
        if len(population):
            mean = population.inputs.mean(axis=0)
            classes = np.unique(population.targets).tolist()
            of_class = {label: population.inputs[population.targets == label].mean(axis=0) for label in classes}
            batches.append(mean[None])
            batches.append(np.stack([of_class.get(label, mean) for label in reconstruction.labels.tolist()]))
            batches.append(population.inputs[rng.permutation(len(population))[: len(reconstruction.inputs)]])
        return batches

    def readings(
        self,
        reconstructions: Rows,
        guess: Rows,
        truth: Rows,
        errors: FloatArray,
        guess_errors: FloatArray,
        population: Examples,
    ) -> list[dict[str, float]]:
        """See the class. Details of an example that are NaN are left out."""
        levels, others = psnr(errors), psnr(guess_errors)
        details = self.details(reconstructions, truth, errors, population)
        return [
            {
                "margin": float(levels[i] - others[i]),
                "beats_prior": float(errors[i] < guess_errors[i]),
                "psnr": float(levels[i]),
                **{name: float(column[i]) for name, column in details.items() if not np.isnan(column[i])},
            }
            for i in range(len(reconstructions))
        ]

    def details(
        self, reconstructions: Rows, truth: Rows, errors: FloatArray, population: Examples
    ) -> dict[str, FloatArray]:
        """Further readings (n,) of n examples by name, NaN where one has none."""
        return {"mse": errors}

    def report_arrays(self, parts: Mapping[str, Rows], readings: Sequence[Mapping[str, float]]) -> Mapping[str, Rows]:
        """The values, and their PSNR."""
        levels = np.array([reading["psnr"] for reading in readings])
        return {**parts, "psnr": levels, "prior_psnr": levels - np.array([reading["margin"] for reading in readings])}

    @staticmethod
    def draw(axes: Axes, values: Rows) -> None:
        """As an image in grey: values in one line are folded into a square where that fits."""
        image = np.clip(np.asarray(values, dtype=np.float64), 0, 1)
        side = math.isqrt(image.size)
        draw_image(axes, image.reshape(side, side) if side * side == image.size else image.reshape(1, -1))


def draw_image(axes: Axes, image: FloatArray) -> None:
    """An image (height, width) in grey, or (height, width, 3) in colour, without ticks."""
    aspect: Literal["auto", "equal"] = "auto" if image.shape[0] == 1 else "equal"
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect=aspect)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color("#CCCCCC")
