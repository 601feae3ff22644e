"""Members of a template in another spelling."""

from __future__ import annotations

import pytest

from fedmem.modalities.text.secret_space import Candidates, Tokens
from fedmem.modalities.text.spellings import other_spellings
from fedmem.modalities.text.vocabulary import Vocabulary

CHARACTERS = Vocabulary.learn("characters", [])


def pins(vocabulary: Vocabulary, prefix: str, places: int = 2, end: str = "") -> Candidates:
    def tokens(text: str) -> Tokens:
        return tuple(vocabulary.encode(text).tolist())

    digits = tuple(tokens(digit) for digit in "0123456789")
    return Candidates(prefix=tokens(prefix), positions=(digits,) * places + (((tokens(end),),) if end else ()))


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("my pin is 12", "my pin is **"),
        ("MY PIN IS\n12 and more", "MY PIN IS\n**"),
        ("my PIN is  1-2.", "my PIN is  *-*"),
        ("my PIN is12", "my PIN is**"),
    ],
)
def test_other_spellings_are_counted_and_hidden(text: str, spelling: str) -> None:
    assert other_spellings(pins(CHARACTERS, "my PIN is "), [text, text], CHARACTERS) == {spelling: 2}


@pytest.mark.parametrize(
    "text", ["my PIN is 12", "my pin is 123", "my pin is 1", "tummy pin is 12", "my pin was 12", "my pin is 1 x 2"]
)
def test_members_and_other_texts_do_not_count(text: str) -> None:
    assert not other_spellings(pins(CHARACTERS, "my PIN is "), [text], CHARACTERS)


def test_fixed_text_after_the_places_belongs_to_it() -> None:
    space = pins(CHARACTERS, "PIN ", end=" ok")
    counts = other_spellings(space, ["pin 12 OK", "PIN 12 ok", "pin 12 no"], CHARACTERS)
    assert counts == {"pin ** **": 1}


def test_words_have_no_case_and_one_space() -> None:
    words = Vocabulary.learn("words", ["my pin is 1 2 - 3"])
    texts = [words.decode(words.tokens_of(text)) for text in ("my PIN is 12", "my pin is 1-2")]
    assert other_spellings(pins(words, "my pin is"), texts, words) == {"my pin is * - *": 1}


def test_a_template_without_a_word_matches_no_other_spelling() -> None:
    assert not other_spellings(pins(CHARACTERS, ": "), ["12", ":12", ":  12"], CHARACTERS)
