"""Tests of `fedmem/modalities/labelled_texts.py`."""

import numpy as np

from fedmem.contracts.data import Examples
from fedmem.modalities.labelled_texts import LabelledTexts
from fedmem.modalities.modality import of_kind

MODALITY = LabelledTexts(vocabulary=("the", "pin", "is"))
ROWS = np.array([[0, 1, 2], [0, 1, -1]])


def test_rows_are_compared_up_to_the_end_of_a_text() -> None:
    assert MODALITY.errors(ROWS, ROWS).diagonal().tolist() == [0.0, 0.0]
    assert MODALITY.errors(ROWS[1:], ROWS[:1])[0, 0] > 0
    assert np.isnan(MODALITY.nearest_error(ROWS, ROWS[:0]))


def test_tokens_are_no_numbers_to_move() -> None:
    assert not MODALITY.any_values
    assert not MODALITY.numeric((3,)).any()
    assert MODALITY.problem((3,), 5) == ""
    assert "should" not in MODALITY.problem((3,), 5)
    assert MODALITY.problem((3, 2), 5)


def test_equal_rows_have_equal_inputs() -> None:
    examples = Examples(inputs=ROWS, targets=np.array([0, 1]), ids=np.arange(2))
    assert MODALITY.are_equal(examples, examples.take(np.array([0, 0]))).tolist() == [True, False]
    assert of_kind("labelled_texts") is LabelledTexts
