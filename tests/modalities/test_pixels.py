"""Tests of `fedmem/modalities/pixels.py`."""

from __future__ import annotations

import numpy as np

from fedmem.modalities.modality import of_kind
from fedmem.modalities.pixels import LEVELS, Pixels
from fedmem.modalities.text.vocabulary import Vocabulary

FOUR = Pixels(vocabulary=tuple(LEVELS[:3]), shape=(1, 2, 2))


def test_distance_is_the_root_mean_squared_difference() -> None:
    rows, truth = np.array([[0, 0, 1, 2, 2], [0, 2, 2, 2, 2]]), np.array([[0, 0, 1, 2, 0], [1, 0, 1, 2, 2]])
    expected = np.sqrt(np.array([[1.0, 0.0], [1 + 0.25 + 1, 1 + 0.25]]) / 4)
    np.testing.assert_allclose(FOUR.distances(rows, truth), expected)


def test_missing_pixels_are_decided() -> None:
    part = np.array([[0, 1, -1, -1, -1]])
    whole = np.array([[0, 1, 2, 2, 2]])
    assert FOUR.distances(whole, part).tolist() == [[0.0]]
    assert FOUR.distances(part, whole).round(3).tolist() == [[0.866]]
    assert np.isnan(FOUR.distances(whole, np.full((1, 5), -1))).all()
    assert FOUR.distances(whole[:0], whole).shape == (0, 1)


def test_problem_names_rows_of_another_length() -> None:
    assert FOUR.problem((4,), 3) == ""
    assert "4 pixels, but rows have shape (5,)" in FOUR.problem((5,), 3)
    assert "3 tokens, but there are 2 classes" in FOUR.problem((4,), 2)


def test_it_is_found_by_name_and_every_level_is_a_character() -> None:
    assert of_kind("pixels") is Pixels
    coder = FOUR.coder
    assert coder is not None
    assert coder.kind == "characters"
    assert coder.tokens_of(" 12").tolist() == [0, 1, 2]
    assert Vocabulary.of(tuple(LEVELS)).decode(range(len(LEVELS))) == LEVELS
    assert coder.tokens_of("é").tolist() == [-1], "no level of these images"
