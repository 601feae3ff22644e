"""Texts of people: who becomes a client, what the vocabulary may know, and what is said to a wrong file."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from fedmem.datasets.text_table import TextTable
from fedmem.modalities.text.vocabulary import UNKNOWN, Vocabulary
from fedmem.modalities.texts import Texts
from tests.datasets.texts_helpers import PEOPLE, load, written
from tests.narrowing import instance, present


@pytest.mark.parametrize("name", ["said.csv", "said.parquet"])
def test_rows_are_their_clients_text_and_splits_are_disjoint(table: Callable[..., TextTable], name: str) -> None:
    data = load(table(PEOPLE, name, attributes=("party",)))
    vocabulary = Vocabulary.of(instance(data.modality, Texts).vocabulary)
    texts = ["a dog ate the cat " * 9, "the cat sat on the mat " * 4 + "\nand slept"]
    assert present(data.natural).tolist() == sorted(present(data.natural).tolist())
    for text, owner, party in zip(
        written(data.train, vocabulary), present(data.natural), data.sensitive["party"], strict=True
    ):
        assert text in texts[owner]
        assert party == "yx"[owner]
    parts = written(data.train, vocabulary) + written(data.test, vocabulary)
    order = np.argsort(np.concatenate([data.train.ids, data.test.ids]))
    assert data.text_starts.tolist() == [0, len(texts[0]) // 10]
    # put in order again, all windows together are the texts, every place once
    together = "".join(parts[i] for i in order)
    assert together == texts[0][: len(texts[0]) // 10 * 10] + texts[1][: len(together) - len(texts[0]) // 10 * 10]


def test_words_that_only_clients_use_are_unknown(table: Callable[..., TextTable]) -> None:
    """The vocabulary would tell that somebody wrote a word, if it were learnt from what is trained on."""
    own = ["".join(letters) for letters in product("uvwxyz", repeat=3)]
    people = [("a", " ".join(own), "x"), ("b", "public words " * 30, "x")]
    data = load(table(people, tokens="words", clients=1))
    known = {token for token in instance(data.modality, Texts).vocabulary if token.isalpha()}
    trained, tested = (
        {
            word
            for text in written(rows, Vocabulary.of(instance(data.modality, Texts).vocabulary))
            for word in text.split()
        }
        for rows in (data.train, data.test)
    )
    assert trained == {UNKNOWN}
    assert UNKNOWN not in tested
    assert known == {"public", "words"} | tested


def test_longest_texts_become_clients_and_are_cut_to_the_maximum(table: Callable[..., TextTable]) -> None:
    people = [(name, name * size, "x") for name, size in (("a", 100), ("b", 300), ("c", 200), ("d", 19))]
    data = load(table(people, clients=2, max_chars=150))
    assert {text[0] for text in written(data.train, Vocabulary.of(instance(data.modality, Texts).vocabulary))} == {
        "b",
        "c",
    }
    assert len(data.train) + len(data.test) == 2 * 15
    assert len(np.unique(present(load(table(people, min_chars=100)).natural))) == 3
