"""How near what was rebuilt is to what was there, for inputs that are numbers and for rows of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.attack import Reconstruction
from fedmem.contracts.federation import Federation
from fedmem.contracts.probe import Context
from fedmem.contracts.types import FloatArray, IntArray
from fedmem.modalities.images import nearest, psnr, squared_errors, ssim
from fedmem.modalities.tables import right as correct
from fedmem.modalities.tables import tolerances, usual_row
from fedmem.modalities.text.vocabulary import Vocabulary
from fedmem.modalities.text.windows import texts
from fedmem.modalities.texts import in_order, in_proportion, likeness, usual
from fedmem.probes._cases import Case

Rows = NDArray[Any]
"""What is compared, one entry for each example."""


class Measure(Protocol):
    """What is compared of each example, and how."""

    def rows(self, inputs: Rows, targets: IntArray | None) -> Rows:
        """What is compared of these examples."""
        ...

    def errors(self, found: Rows, truth: Rows) -> FloatArray:
        """(m, n) how far every one of m rows is from every one of n, 0 only where they are equal."""
        ...

    def nearest(self, found: Rows, gallery: Rows) -> float:
        """The least error between any row and any of a gallery; NaN where either has none."""
        ...

    def priors(self, case: Case, found: Reconstruction, context: Context) -> list[Rows]:
        """Batches that somebody could offer who has not seen the gradient, its labels apart."""
        ...

    def values(
        self, own: Rows, prior: Rows, truth: Rows, errors: FloatArray, prior_errors: FloatArray, federation: Federation
    ) -> list[dict[str, float]]:
        """Readings of each of k examples by what stands for it and by the best prior, the telling ones first."""
        ...

    def shown(
        self, parts: Mapping[str, Rows], values: Sequence[Mapping[str, float]], federation: Federation
    ) -> Mapping[str, Rows]:
        """What is kept of some examples for the report."""
        ...


def measure_of(federation: Federation) -> Measure:
    """By the targets: one for each example, or one at each place of a text."""
    return Numbers() if federation.store.targets.ndim == 1 else Passages()


class Numbers:
    """Images and records, by squared error."""

    def rows(self, inputs: Rows, targets: IntArray | None) -> Rows:
        """The inputs."""
        return inputs

    def errors(self, found: Rows, truth: Rows) -> FloatArray:
        """Mean squared errors."""
        return squared_errors(found, truth)

    def nearest(self, found: Rows, gallery: Rows) -> float:
        """Of mean squared errors."""
        return nearest(found, gallery)

    def priors(self, case: Case, found: Reconstruction, context: Context) -> list[Rows]:
        """Grey, means of families, of the population and of its classes, and random members of it."""
        federation, place = context.federation, case.transition
        batches: list[Rows] = [np.full((1, *case.target.input_shape), 0.5, dtype=np.float32)]
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

    def values(
        self, own: Rows, prior: Rows, truth: Rows, errors: FloatArray, prior_errors: FloatArray, federation: Federation
    ) -> list[dict[str, float]]:
        """Decibels over the best prior, decibels, structural similarity, squared error, and cells of a table."""
        alike, cells = ssim(own, truth), _cells(own, truth, federation)
        levels, others = psnr(errors), psnr(prior_errors)
        found = [
            {
                "margin": float(levels[i] - others[i]),
                "beats_prior": float(errors[i] < prior_errors[i]),
                "psnr": float(levels[i]),
                "ssim": float(alike[i]),
                "mse": float(errors[i]),
                "cells": float(cells[i, 0]),
                "cells_gain": float(cells[i, 0] - cells[i, 1]),
            }
            for i in range(len(own))
        ]
        optional = ("ssim", "cells", "cells_gain")
        return [{k: v for k, v in one.items() if not (np.isnan(v) and k in optional)} for one in found]

    def shown(
        self, parts: Mapping[str, Rows], values: Sequence[Mapping[str, float]], federation: Federation
    ) -> Mapping[str, Rows]:
        """The images, and their decibels."""
        levels = np.array([one["psnr"] for one in values])
        return {**parts, "psnr": levels, "prior_psnr": levels - np.array([one["margin"] for one in values])}


class Passages:
    """Texts, from their first token to the last that is asked for, by the tokens and places that both have alike."""

    def rows(self, inputs: Rows, targets: IntArray | None) -> Rows:
        """(n, L + 1) windows, -1 after the last token that is asked for."""
        assert targets is not None
        return texts(inputs.astype(np.int64), targets)

    def errors(self, found: Rows, truth: Rows) -> FloatArray:
        """1 less the likeness."""
        return 1.0 - likeness(found, truth).both

    def nearest(self, found: Rows, gallery: Rows) -> float:
        """Of 1 less the likeness."""
        return float(self.errors(found, gallery).min()) if len(found) and len(gallery) else float("nan")

    def priors(self, case: Case, found: Reconstruction, context: Context) -> list[Rows]:
        """The first token everywhere; the usual tokens of each family and of the population, as many random members of
        each as texts were rebuilt, and as many rows of the tokens of the population in proportion, in random order.

        As many, because of several guesses the nearest counts.
        """
        federation, place = context.federation, case.transition
        population, count = federation.population, len(found.inputs)
        rng = context.stream("leakage population", run=place.run, round=place.round, client=place.client)
        batches: list[Rows] = [np.zeros((1, case.target.input_shape[0] + 1), dtype=np.int64)]
        sources = [(one.inputs, one.targets) for one in federation.references]
        for inputs, targets in (*sources, (population.inputs, population.targets)):
            if len(inputs):
                rows = self.rows(inputs, targets)
                batches += [usual(rows), rows[rng.permutation(len(rows))[:count]]]
        if len(population):
            bag = in_proportion(self.rows(population.inputs, population.targets))[0]
            batches.append(np.stack([rng.permutation(bag) for _ in range(count)]))
        return batches

    def values(
        self, own: Rows, prior: Rows, truth: Rows, errors: FloatArray, prior_errors: FloatArray, federation: Federation
    ) -> list[dict[str, float]]:
        """Likeness over the best prior, likeness, and what it consists of."""
        found = []
        for one, other, true in zip(own, prior, truth, strict=True):
            alike, guessed = likeness(one[None], true[None]), likeness(other[None], true[None])
            both, before = float(alike.both[0, 0]), float(guessed.both[0, 0])
            found.append(
                {
                    "likeness_gain": both - before,
                    "beats_prior": float(both > before),
                    "likeness": both,
                    "tokens": float(alike.tokens[0, 0]),
                    "in_order": in_order(one, true),
                    "in_place": float(alike.in_place[0, 0]),
                    "verbatim": float(both == 1.0),
                }
            )
        return found

    def shown(
        self, parts: Mapping[str, Rows], values: Sequence[Mapping[str, float]], federation: Federation
    ) -> Mapping[str, Rows]:
        """The texts in writing, or as numbers where no vocabulary is known, and how alike they are."""
        words = Vocabulary.of(federation.vocabulary) if federation.vocabulary else None

        def written(row: IntArray) -> str:
            tokens = row[row >= 0]
            return words.decode(tokens) if words else " ".join(map(str, tokens.tolist()))

        texts = {f"{name}_text": np.array([written(row) for row in rows]) for name, rows in parts.items()}
        alike = np.array([one["likeness"] for one in values])
        gains = np.array([one["likeness_gain"] for one in values])
        return {**texts, "likeness": alike, "prior_likeness": alike - gains}


def _cells(found: Rows, truth: Rows, federation: Federation) -> FloatArray:
    """(n, 2) the share of right cells of each row of a table, and that of the usual row; NaN where there is none."""
    blocks, population = federation.blocks, federation.population.inputs
    if not blocks or not len(population):
        return np.full((len(found), 2), np.nan)
    tolerance, ordinary = tolerances(population, blocks), usual_row(population, blocks)
    pairs = zip(found, truth, strict=True)
    return np.array(
        [
            [correct(one[None], true[None], blocks, tolerance).mean() for one in (own, ordinary[0])]
            for own, true in pairs
        ]
    )
