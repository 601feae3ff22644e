"""Texts with one class each: rows of tokens, -1 after the end of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.attack import Reconstruction
from fedmem.contracts.audit_set import References
from fedmem.contracts.data import Examples
from fedmem.modalities.modality import Modality, Rows
from fedmem.modalities.text.tokenizer import text_coder
from fedmem.modalities.texts import Texts, modal_tokens, similarity


@dataclass(frozen=True, kw_only=True)
class LabelledTexts(Modality):
    """Rows of tokens, inputs (L,) with -1 after the end of a text, and one class each.

    Texts are compared as by `Texts`, and readings are the same.

    Attributes:
        vocabulary: The V tokens.
        tokenizer: The folder of the tokenizer that made them; empty for characters, bytes or words.

    >>> LabelledTexts(vocabulary=("a", "b")).tokens, LabelledTexts(vocabulary=("a", "b")).token_inputs
    (False, True)
    """

    kind: ClassVar[str] = "labelled_texts"
    token_inputs: ClassVar[bool] = True
    similarity: ClassVar[str] = "similarity"
    written: ClassVar[bool] = True

    vocabulary: tuple[str, ...] = ()
    tokenizer: str = ""

    def problem(self, shape: tuple[int, ...], num_classes: int) -> str:
        """A row has one axis."""
        return "" if len(shape) == 1 else f"rows of tokens have shape (length,), not {shape}"

    def comparison_rows(self, inputs: Rows, targets: IntArray | None) -> Rows:
        """(n, L) tokens, -1 after the end."""
        return inputs.astype(np.int64)

    def errors(self, rows: Rows, truth: Rows) -> FloatArray:
        """1 minus the similarity."""
        return 1.0 - similarity(rows, truth).both

    def nearest_error(self, rows: Rows, gallery: Rows) -> float:
        """The smallest error, 1 minus the similarity, of all pairs."""
        return float(self.errors(rows, gallery).min()) if len(rows) and len(gallery) else float("nan")

    def guesses(
        self,
        reconstruction: Reconstruction,
        shape: tuple[int, ...],
        references: Sequence[References],
        population: Examples,
        rng: np.random.Generator,
    ) -> list[Rows]:
        """The first token everywhere, modal tokens of the population, and random members of it."""
        batches: list[Rows] = [np.zeros((1, *shape), dtype=np.int64)]
        if len(population):
            rows = self.comparison_rows(population.inputs, None)
            batches += [modal_tokens(rows), rows[rng.permutation(len(rows))[: len(reconstruction.inputs)]]]
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
        """See `Texts`."""
        return Texts(vocabulary=self.vocabulary).readings(
            reconstructions, guess, truth, errors, guess_errors, population
        )

    def report_arrays(self, parts: Mapping[str, Rows], readings: Sequence[Mapping[str, float]]) -> Mapping[str, Rows]:
        """See `Texts`."""
        return Texts(vocabulary=self.vocabulary, tokenizer=self.tokenizer).report_arrays(parts, readings)

    def decode(self, tokens: IntArray) -> str:
        """The text of tokens (n,), or their numbers without a vocabulary."""
        coder = text_coder(self.vocabulary, self.tokenizer)
        return coder.decode(tokens) if coder else " ".join(map(str, tokens.tolist()))

    def text(self, inputs: Rows, targets: NDArray[np.int64]) -> str:
        """The text up to its end.

        >>> LabelledTexts(vocabulary=("the", "pin", "is")).text(np.array([0, 1, -1, -1]), np.array(1))
        'the pin'
        """
        return self.decode(inputs[inputs >= 0].astype(np.int64))
