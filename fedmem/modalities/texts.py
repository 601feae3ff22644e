"""Texts: rows of tokens, and how much of a reconstruction is right, as bags of tokens and as sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.attack import Reconstruction
from fedmem.contracts.audit_set import References
from fedmem.contracts.data import Examples
from fedmem.modalities.loss import UNASKED
from fedmem.modalities.modality import Modality, Rows, count_shared
from fedmem.modalities.text.tokenizer import text_coder
from fedmem.modalities.text.vocabulary import Vocabulary
from fedmem.modalities.text.windows import prefix_and_start, texts


@dataclass(frozen=True, kw_only=True)
class Texts(Modality):
    """Rows of tokens: inputs (L,) and, as targets (L,), the tokens that come next, -1 where nothing is asked.

    Texts are compared from their first token to the last that is asked for. Readings of each example:

    - `similarity_gain`: the similarity of the reconstruction minus that of the baseline guess, -1..1;
    - `beats_prior`: 1 where the similarity is above that of the guess, else 0;
    - `similarity`: the mean of `tokens` and `in_place`, 0..1 (`similarity`);
    - `tokens`, `in_order`, `in_place`: shares of tokens that both have, that both have in the same order, and that are
      the same place by place, 0..1;
    - `verbatim`: 1 where the texts are the same, else 0.

    Attributes:
        vocabulary: The V tokens; `num_classes` of the data set is V. Empty where a text is known as numbers alone.
        tokenizer: The folder of the tokenizer that made them; empty for characters, bytes or words.

    >>> Texts(vocabulary=("a", "b")).tokens, Texts(vocabulary=("a", "b")).any_values
    (True, False)
    """

    kind: ClassVar[str] = "texts"
    tokens: ClassVar[bool] = True
    token_inputs: ClassVar[bool] = True
    similarity: ClassVar[str] = "similarity"
    written: ClassVar[bool] = True

    vocabulary: tuple[str, ...] = ()
    tokenizer: str = ""

    def problem(self, shape: tuple[int, ...], num_classes: int) -> str:
        """A row has one axis, and each token is a class."""
        if len(shape) != 1:
            return f"rows of tokens have shape (length,), not {shape}"
        if self.vocabulary and len(self.vocabulary) != num_classes:
            return f"the vocabulary has {len(self.vocabulary)} tokens, but there are {num_classes} classes"
        return ""

    def frequencies(self, rows: Examples) -> FloatArray:
        """The frequency of every token of a row. Targets are all tokens but the first."""
        tokens = np.concatenate([rows.inputs[:, 0], rows.targets[rows.targets != UNASKED]])
        return np.bincount(tokens, minlength=len(self.vocabulary)) / len(tokens)

    def are_equal(self, rows: Examples, others: Examples) -> BoolArray:
        """Whether inputs are equal, and tokens wherever the other has a target. No input reads later tokens."""
        tokens = (others.targets == UNASKED) | (others.targets == rows.targets)
        return np.asarray(super().are_equal(rows, others) & tokens.all(axis=1))

    def comparison_rows(self, inputs: Rows, targets: IntArray | None) -> Rows:
        """(n, L + 1) tokens, -1 after the last that is asked for."""
        assert targets is not None
        return texts(inputs.astype(np.int64), targets)

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
        """The baseline guesses for texts.

        - the first token everywhere;
        - modal tokens and random members of each canary family and of the population;
        - rows of tokens in the proportions of the population, in random order.

        There are as many members and such rows as texts were reconstructed, because the nearest of several counts.
        """
        count = len(reconstruction.inputs)
        batches: list[Rows] = [np.zeros((1, shape[0] + 1), dtype=np.int64)]
        sources = [(family.inputs, family.targets) for family in references]
        for inputs, targets in (*sources, (population.inputs, population.targets)):
            if len(inputs):
                rows = self.comparison_rows(inputs, targets)
                batches += [modal_tokens(rows), rows[rng.permutation(len(rows))[:count]]]
        if len(population):
            bag = in_proportion(self.comparison_rows(population.inputs, population.targets))[0]
            batches.append(np.stack([rng.permutation(bag) for _ in range(count)]))
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
        """See the class."""
        readings = []
        for row, other, true in zip(reconstructions, guess, truth, strict=True):
            reached, guessed = similarity(row[None], true[None]), similarity(other[None], true[None])
            both, before = float(reached.both[0, 0]), float(guessed.both[0, 0])
            readings.append(
                {
                    "similarity_gain": both - before,
                    "beats_prior": float(both > before),
                    "similarity": both,
                    "tokens": float(reached.tokens[0, 0]),
                    "in_order": in_order(row, true),
                    "in_place": float(reached.in_place[0, 0]),
                    "verbatim": float(both == 1.0),
                }
            )
        return readings

    def report_arrays(self, parts: Mapping[str, Rows], readings: Sequence[Mapping[str, float]]) -> Mapping[str, Rows]:
        """The texts in writing, or as numbers without a vocabulary, and their similarity."""
        strings = {
            f"{name}_text": np.array([self.decode(row[row >= 0]) for row in rows]) for name, rows in parts.items()
        }
        similarities = np.array([reading["similarity"] for reading in readings])
        gains = np.array([reading["similarity_gain"] for reading in readings])
        return {**strings, "similarity": similarities, "prior_similarity": similarities - gains}

    def decode(self, tokens: IntArray) -> str:
        """The text of tokens (n,), or their numbers without a vocabulary."""
        whole = self.coder
        return whole.decode(tokens) if whole else " ".join(map(str, tokens.tolist()))

    def text(self, inputs: Rows, targets: IntArray) -> str:
        """The text up to the last token that is asked for; what is asked for, such as a secret, is in double brackets.

        Nothing is in brackets where all tokens but the first are asked for.

        >>> rows = Texts(vocabulary=("the", "pin", "is", "4", "7"))
        >>> rows.text(np.array([0, 1, 2, 3]), np.array([-1, -1, 3, 4]))
        'the pin is [[4 7]]'
        >>> rows.text(np.array([0, 1, 0, 0]), np.array([1, 2, -1, -1]))
        'the pin is'
        """
        tokens, _ = prefix_and_start(inputs.astype(np.int64), targets)
        is_asked = [False, *(targets[: len(tokens) - 1] != UNASKED).tolist()]
        if all(is_asked[1:]):
            return self.decode(np.array(tokens, dtype=np.int64))
        pieces = []
        for asked, group in groupby(zip(is_asked, tokens, strict=False), key=lambda pair: pair[0]):
            piece = self.decode(np.array([token for _, token in group], dtype=np.int64))
            pieces.append(f"[[{piece}]]" if asked else piece)
        between = "" if self.coder and self.coder.kind != "words" else " "
        return between.join(pieces)

    @cached_property
    def coder(self) -> Vocabulary | None:
        """The vocabulary, which encodes and decodes; None without one."""
        return text_coder(self.vocabulary, self.tokenizer)

    def label_scores(
        self, labels: IntArray, truth: IntArray, num_classes: int, population: Examples
    ) -> tuple[float, float]:
        """Labels are next tokens: of the more of both, since their number is a guess as well.

        The guess names as many tokens as there are, in the proportions of the population: tokens are far from equally
        frequent, and that is public.
        """
        true, public = truth[truth != UNASKED], population.targets
        guess = np.arange(len(true)) % num_classes
        if (public != UNASKED).any():
            guess = in_proportion(public, len(true))[0]
        return count_shared(labels, true, num_classes, len(true)), count_shared(guess, true, num_classes, len(true))


def modal_tokens(rows: IntArray) -> IntArray:
    """(1, W) of n rows (n, W), -1 after their ends, the commonest entry at each place, of equal ones the lowest.

    >>> modal_tokens(np.array([[3, 5, -1], [3, 4, -1], [2, 4, 7]])).tolist()
    [[3, 4, -1]]
    """
    return np.array([[np.bincount(column + 1).argmax() - 1 for column in rows.T]], dtype=np.int64)


def in_proportion(rows: IntArray, width: int | None = None) -> IntArray:
    """(1, W) a row with tokens as frequent as in n rows (n, L), as nearly as W places allow, in order of number.

    Each token gets the whole part of its share of W. Places that are left go to the largest remainders, and to the
    lowest number among equal remainders. Rows without any token give -1. W is `width`, and L where that is left out.

    >>> in_proportion(np.array([[7, 5, 5], [5, 7, 5]])).tolist()
    [[5, 5, 7]]
    """
    width = rows.shape[1] if width is None else width
    counts = np.bincount(rows[rows >= 0])
    if not counts.sum():
        return np.full((1, width), -1, dtype=np.int64)
    # in whole numbers, where equal remainders are equal
    repeats, remainders = np.divmod(width * counts, counts.sum())
    repeats[np.argsort(-remainders, kind="stable")[: width - repeats.sum()]] += 1
    return np.repeat(np.arange(len(counts)), repeats)[None]


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Similarity of sequences.

    `tokens` is the share of tokens that both have, as multisets, and `in_place` the share of places with the same
    token. Both are shares of the tokens of the longer of the two, 0..1, higher is more similar. `both` is the mean of
    the two, 1 if and only if the sequences are the same. Equal means are equal to the last bit.
    """

    tokens: FloatArray
    in_place: FloatArray
    both: FloatArray


def similarity(sequences: IntArray, truth: IntArray) -> Similarity:
    """(m, n) similarity of each of m sequences (m, W) to each of n sequences (n, W); -1 after their ends is no token.

    The similarity of two sequences without any token is 0.

    >>> alike = similarity(np.array([[4, 4, 1], [4, 1, -1]]), np.array([[4, 1, -1]]))
    >>> alike.tokens.round(2).tolist(), alike.in_place.round(2).tolist()
    ([[0.67], [1.0]], [[0.33], [1.0]])
    """
    size = max(int(sequences.max(initial=0)), int(truth.max(initial=0))) + 1
    counts = np.zeros((len(sequences), size), dtype=np.int64)
    np.add.at(counts, (np.nonzero(sequences >= 0)[0], sequences[sequences >= 0]), 1)
    lengths = (sequences >= 0).sum(axis=1)
    tokens, in_place, both = np.zeros((3, len(sequences), len(truth)))
    for j, row in enumerate(truth):
        kinds, times = np.unique(row[row >= 0], return_counts=True)
        longer = np.maximum(lengths, times.sum()).clip(min=1)
        shared = np.minimum(counts[:, kinds], times).sum(axis=1)
        same = ((sequences == row) & (row >= 0)).sum(axis=1)
        # the sum of two quotients would depend on how it is split, and break ties by rounding
        tokens[:, j], in_place[:, j], both[:, j] = shared / longer, same / longer, (shared + same) / (2 * longer)
    return Similarity(tokens=tokens, in_place=in_place, both=both)


def in_order(sequence: IntArray, truth: IntArray) -> float:
    """The length of the longest common subsequence of two sequences (W,), as a share of the longer, 0..1; -1 is none.

    0 where neither has a token.

    >>> in_order(np.array([1, 2, 3, 4]), np.array([1, 3, 2, 4]))
    0.75

    Reference: Lin (2004), ROUGE-L, is built on the same.
    """
    first, second = (tokens[tokens >= 0] for tokens in (sequence, truth))
    row = np.zeros(len(second) + 1, dtype=np.int64)
    for token in first:
        longer = np.concatenate([[0], np.where(second == token, row[:-1] + 1, row[1:])])
        row = np.maximum.accumulate(np.maximum(longer, row))
    return int(row[-1]) / max(len(first), len(second), 1)
