"""Tests of `fedmem/modalities/text/continuations.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedmem.modalities.text.continuations import bleu, common_prefixes, continue_greedily, edit_distances
from fedmem.modalities.text.generation import beam, edit_distance
from tests.language import VOCABULARY, Recurrent, Written, chances


def test_each_text_is_continued_as_a_beam_of_width_one() -> None:
    model, prefixes = Written(chances), np.random.default_rng(0).integers(VOCABULARY, size=(6, 3))
    found = continue_greedily(model, prefixes, 4)
    for prefix, written in zip(prefixes.tolist(), found, strict=True):
        assert written.tolist() == beam(Written(chances), prefix, 4).tokens[0].tolist()
    assert continue_greedily(model, prefixes[:0], 4).shape == (0, 4)


def test_lowest_of_equal_tokens_is_written_and_nan_is_not() -> None:
    tied = Written(lambda _: [0.1, 0.4, 0.4, 0.1, 0.0])
    assert continue_greedily(tied, np.array([[0]]), 2).tolist() == [[1, 1]]

    class Broken(Written):
        def advance(self, state, tokens):  # type: ignore[no-untyped-def]
            logits, state = super().advance(state, tokens)
            logits[:, 1] = torch.nan
            return logits, state

    assert continue_greedily(Broken(lambda _: [0.1, 0.4, 0.4, 0.1, 0.0]), np.array([[0]]), 1).tolist() == [[2]]
    assert continue_greedily(Broken(lambda _: [math.nan] * 5), np.array([[0]]), 1).tolist() == [[0]]


def test_network_is_read_from_its_first_token_on() -> None:
    """A prefix of which only the last token were read would be continued otherwise."""
    from fedmem.modalities.text.language_model import causal

    network = Recurrent(seed=3)
    model = causal(network, dict(network.named_parameters()))
    prefixes = np.array([[a, b, 2] for a in range(VOCABULARY) for b in range(VOCABULARY)])
    found = continue_greedily(model, prefixes, 5)
    assert [beam(model, prefix, 5).tokens[0].tolist() for prefix in prefixes.tolist()] == found.tolist()
    assert len(np.unique(found, axis=0)) > 1


def test_edit_distances_are_those_of_single_pairs() -> None:
    rng = np.random.default_rng(1)
    for length in (1, 2, 7, 12):
        texts, others = rng.integers(3, size=(2, 40, length))
        expected = [edit_distance(a, b) for a, b in zip(texts.tolist(), others.tolist(), strict=True)]
        assert edit_distances(texts, others).tolist() == expected


def test_common_prefix_ends_at_the_first_difference() -> None:
    truth = np.array([[1, 2, 3, 4]] * 4)
    written = np.array([[1, 2, 3, 4], [1, 2, 0, 4], [0, 2, 3, 4], [1, 2, 3, 0]])
    assert common_prefixes(written, truth).tolist() == [4, 2, 0, 3]


@pytest.mark.parametrize(
    ("text", "truth", "expected"),
    [
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], 1.0),
        ([1, 2, 3, 4, 5], [1, 2, 3, 9, 5], 0.0),  # no four in a row
        ([1, 2, 3, 4, 9], [1, 2, 3, 4, 5], (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25),
        ([7, 7, 7, 7, 7], [7, 7, 7, 7, 1], (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25),  # counted as often as both have it
        ([1, 2, 3], [1, 2, 3], math.nan),
    ],
)
def test_bleu_by_hand(text: list[int], truth: list[int], expected: float) -> None:
    assert bleu(np.array(text), np.array(truth)) == pytest.approx(expected, nan_ok=True)
