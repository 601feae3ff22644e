"""From text to token numbers and back: characters, bytes, or words."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedmem.errors import ComponentError

Tokens = Literal["characters", "bytes", "words"]
"""The unit that is one token."""

UNKNOWN = "<unk>"
"""The token of corpus text that stands for whatever is not in the vocabulary; bytes need none."""

_BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
# Fixed and not read from any text, so that they leak nothing, and secrets may have digits where a corpus has none.
_PRINTABLE = ("\n", *(chr(code) for code in range(32, 127)))
_SIGNS = (*string.digits, *string.punctuation)
# Every digit is a word: a number never seen before is not unknown, and a secret of digits has a token for each.
_WORD = re.compile(rf"{re.escape(UNKNOWN)}|\d|[^\W\d]+(?:'[^\W\d]+)*|[^\w\s]")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The tokens of a text, numbered 0 to V - 1.

    - `characters`: printable ASCII, the line feed, and what else a public text has; `<unk>` is number 0.
    - `bytes`: the 256 bytes of UTF-8, written `<0x00>` to `<0xFF>`; nothing is unknown.
    - `words`: runs of letters in lower case, each digit, and each single punctuation mark; `<unk>` is number 0.
      White space is not kept, and decoded words have one space between them.

    Guarantees:

    - `encode(decode(encode(text)))` equals `encode(text)`; for characters and bytes `decode(encode(text))` is the text;
    - `of` finds the kind from the tokens alone, whatever they were learned from;
    - `learn` depends on the texts it is given and on nothing else, ties in alphabetical order.

    >>> words = Vocabulary.learn("words", ["To be, or not to be"])
    >>> words.decode(words.tokens_of("To be or not to sleep"))
    'to be or not to <unk>'
    >>> Vocabulary.of(words.tokens).kind
    'words'
    """

    tokens: tuple[str, ...]
    kind: Tokens | Literal["subwords"]

    def __post_init__(self) -> None:
        assert len(set(self.tokens)) == len(self.tokens), "a token has one number"

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def joins(self) -> bool:
        """Whether the tokens of two texts, one after the other, are those of the texts one after the other."""
        return True

    @staticmethod
    def of(tokens: tuple[str, ...]) -> Vocabulary:
        """The vocabulary of these tokens: bytes look like none other, and only characters have a space."""
        kind: Tokens = "bytes" if tokens == _BYTES else "characters" if " " in tokens else "words"
        return Vocabulary(tokens=tokens, kind=kind)

    @staticmethod
    def learn(kind: Tokens, texts: Iterable[str], max_tokens: int | None = None) -> Vocabulary:
        """The vocabulary of public texts; of words the `max_tokens` most frequent (None: all), digits, punctuation."""
        if kind == "bytes":
            return Vocabulary(tokens=_BYTES, kind=kind)
        if kind == "characters":
            others = sorted({character for text in texts for character in set(text)}.difference(_PRINTABLE))
            return Vocabulary(tokens=(UNKNOWN, *_PRINTABLE, *others), kind=kind)
        counts = Counter(word for text in texts for word in _split_words(text))
        for fixed in (UNKNOWN, *_SIGNS):
            counts.pop(fixed, None)
        frequent = sorted(counts, key=lambda word: (-counts[word], word))[:max_tokens]
        return Vocabulary(tokens=(UNKNOWN, *_SIGNS, *sorted(frequent)), kind=kind)

    def encode(self, text: str, place: str = "text") -> NDArray[np.int64]:
        """(n,) token numbers of a text that is written by hand, such as a secret; `place` is its key in the file.

        Errors: `ComponentError` for the first character or word that is not in the vocabulary.
        """
        numbers = self.tokens_of(text)
        unknown = np.flatnonzero(numbers == self._number.get(UNKNOWN, -1))
        if not len(unknown):
            return numbers
        position = int(unknown[0])
        what, missing = (
            ("character", text[position]) if self.kind == "characters" else ("word", _split_words(text)[position])
        )
        remedy = {
            "characters": "use printable ASCII, or `tokens: bytes` in the data set, which knows every character",
            "words": "use words that the public part of the data has, raise `words` of the data set, or write "
            "`tokens: characters` there",
        }
        raise ComponentError(
            place,
            f"{what} {missing!r}, number {position + 1} of {text!r}, is not in the vocabulary of {len(self)} "
            f"{self.kind}; {remedy[self.kind]}",
        )

    def tokens_of(self, text: str) -> NDArray[np.int64]:
        """(n,) token numbers of text of a corpus, with `<unk>` for what is not in the vocabulary."""
        if self.kind == "bytes":
            return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)
        if self.kind == "words":
            unknown = self._number[UNKNOWN]
            return np.array([self._number.get(word, unknown) for word in _split_words(text)], dtype=np.int64)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        vocabulary_codes, numbers = self._codes
        place = np.searchsorted(vocabulary_codes, codes).clip(max=len(vocabulary_codes) - 1)
        return np.where(vocabulary_codes[place] == codes, numbers[place], self._number.get(UNKNOWN, -1))

    def tokens_for_classes(self, text: str) -> NDArray[np.int64]:
        """(n,) token numbers of a text that has one class, with special tokens where the vocabulary has some."""
        return self.tokens_of(text)

    def cut_for_classes(self, numbers: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """At most `length` tokens of such a text, from the first on."""
        return numbers[:length]

    def decode(self, numbers: Iterable[int] | NDArray[Any]) -> str:
        """The text of these numbers; bytes that are no UTF-8 become the replacement character."""
        number_list = [int(number) for number in numbers]
        if self.kind == "bytes":
            return bytes(number_list).decode(errors="replace")
        return (" " if self.kind == "words" else "").join(self.tokens[number] for number in number_list)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    @cached_property
    def _codes(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The code points of single characters, sorted, and the number of each."""
        pairs = sorted((ord(token), number) for token, number in self._number.items() if len(token) == 1)
        codes, numbers = zip(*pairs, strict=True)
        return np.array(codes, dtype=np.uint32), np.array(numbers, dtype=np.int64)


def _split_words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
