"""Tests of `fedmem/datasets/_labelled.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from fedmem.datasets._labelled import LabelledText, TextsWithClasses
from fedmem.errors import ComponentError
from fedmem.modalities.labelled_texts import LabelledTexts
from tests.narrowing import instance


@dataclass(frozen=True, kw_only=True)
class Given(TextsWithClasses):
    """Texts that are written here."""

    given: tuple[tuple[str, str], ...]

    def _texts(self) -> Sequence[LabelledText]:
        return [LabelledText(text=text, label=label, client="", row=i) for i, (text, label) in enumerate(self.given)]


def given(count: int, labels: str = "ab", **fields: object) -> Given:
    return Given(given=tuple((f"text {i}", labels[i % len(labels)]) for i in range(count)), **fields)  # type: ignore[arg-type]


def test_texts_are_cut_and_padded_with_minus_one() -> None:
    data = Given(given=(("abc", "x"), ("abcdefgh", "y")) * 5, tokens="bytes", max_tokens=5).load(
        np.random.default_rng(0)
    )
    rows = {tuple(row) for row in data.train.inputs.tolist()}
    assert rows == {(97, 98, 99, -1, -1), (97, 98, 99, 100, 101)}
    assert data.natural is None


def test_the_test_set_is_stratified_and_teaches_the_vocabulary() -> None:
    data = given(20, tokens="words").load(np.random.default_rng(0))
    assert np.bincount(data.test.targets).tolist() == [2, 2]
    known = set(instance(data.modality, LabelledTexts).vocabulary)
    assert "text" in known


@pytest.mark.parametrize(
    ("loader", "path", "text"),
    [
        (given(10, "a"), "dataset.target", "nothing to learn"),
        (Given(given=(("a", "x"), ("", "y")) * 5, tokens="bytes"), "dataset.text", "without any token"),
    ],
)
def test_what_cannot_be_classified_is_refused(loader: Given, path: str, text: str) -> None:
    with pytest.raises(ComponentError, match=text) as caught:
        loader.load(np.random.default_rng(0))
    assert caught.value.path == path
