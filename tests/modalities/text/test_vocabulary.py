"""Text becomes numbers and comes back; what is not known is told, or is `<unk>`."""

import string
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmem.errors import ComponentError
from fedmem.modalities.text.vocabulary import UNKNOWN, Tokens, Vocabulary

KINDS: tuple[Tokens, ...] = ("characters", "bytes", "words")
texts = st.text(max_size=60)


@given(texts)
def test_characters_and_bytes_give_the_text_back(text: str) -> None:
    for kind in ("characters", "bytes"):
        learnt = Vocabulary.learn(kind, [text])
        assert learnt.decode(learnt.encode(text)) == text


@given(texts, texts)
def test_decoded_text_reads_as_the_same_numbers(public: str, text: str) -> None:
    for kind in KINDS:
        learnt = Vocabulary.learn(kind, [public])
        numbers = learnt.tokens_of(text)
        if kind == "characters" and (numbers == 0).any():
            continue  # `<unk>` is spelt with characters that are known
        np.testing.assert_array_equal(learnt.tokens_of(learnt.decode(numbers)), numbers)


@given(st.lists(texts, max_size=4))
def test_the_kind_is_found_from_the_tokens(public: list[str]) -> None:
    for kind in KINDS:
        learnt = Vocabulary.learn(kind, public)
        assert Vocabulary.of(learnt.tokens) == learnt


@given(texts)
def test_numbers_are_those_of_a_plain_loop(text: str) -> None:
    characters = Vocabulary.learn("characters", ["é"])
    assert characters.tokens_of(text).tolist() == [
        characters.tokens.index(one) if one in characters.tokens else 0 for one in text
    ]


def test_only_words_lose_anything_and_digits_stand_alone() -> None:
    words = Vocabulary.learn("words", ["Don't count 12, o'er!"])
    assert words.decode(words.encode("DON'T\n count, 21")) == "don't count , 2 1"
    assert words.tokens[0] == UNKNOWN
    assert set(string.digits) <= set(words.tokens)


def test_words_keep_the_highest_counts_with_alphabetical_ties() -> None:
    words = Vocabulary.learn("words", ["b a b c a d"], max_tokens=3)
    assert [token for token in words.tokens if token.isalpha()] == ["a", "b", "c"]
    assert words.decode(words.tokens_of("a d")) == f"a {UNKNOWN}"


def test_digits_are_known_to_a_text_without_any() -> None:
    assert Vocabulary.learn("characters", []).encode("0123456789").min() > 0


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("characters", "code €5", "character '€', number 6"),
        ("words", "the access code", "word 'access', number 2"),
        ("words", f"the {UNKNOWN}", "word '<unk>', number 2"),
    ],
)
def test_secret_outside_the_vocabulary_is_an_error_at_its_place(
    kind: Literal["characters", "bytes", "words"], text: str, said: str
) -> None:
    learnt = Vocabulary.learn(kind, ["the code"])
    with pytest.raises(ComponentError, match=said) as caught:
        learnt.encode(text, "injections[0].template")
    assert caught.value.path == "injections[0].template"
    assert "use " in caught.value.message


def test_bytes_know_everything_and_decode_what_is_cut_off() -> None:
    learnt = Vocabulary.learn("bytes", [])
    assert len(learnt) == 256
    assert learnt.decode(learnt.encode("€")[:2]) == "�"
