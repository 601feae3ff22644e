"""Tokenizers in `tokenizer.json`, the file of Hugging Face models: subwords as the vocabulary of texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.errors import ComponentError
from fedmem.fetched.models import model_folder
from fedmem.modalities.text.vocabulary import Vocabulary

FILE = "tokenizer.json"

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, kw_only=True)
class Subwords(Vocabulary):
    """The tokens of a tokenizer that was trained by somebody else, such as that of a pretrained model.

    `tokens` are the V tokens by number, as the file spells them. Decoding needs these alone; encoding reads the file.
    A text of a corpus is encoded without the special tokens of a model, and by `tokens_for_classes` with them.

    Attributes:
        folder: The folder with `tokenizer.json`, as the scenario names it.

    Guarantees:

    - nothing of the texts that are encoded is learnt: the vocabulary is public;
    - byte-level tokenizers (GPT-2, Llama 3, Qwen) decode to the text that was encoded; WordPiece (BERT) may lose case.

    Errors: `ComponentError` where the folder has no such file, or the package `tokenizers` is missing.
    """

    folder: str

    @staticmethod
    def read(folder: str, place: str = "dataset.tokenizer") -> Subwords:
        """The vocabulary of the tokenizer in a folder; `place` is the key that names it."""
        return Subwords(tokens=_tokens_in(_load(folder, place)), kind="subwords", folder=folder)

    @property
    def joins(self) -> bool:
        """Whether tokens of two texts, one after the other, stand for the two texts without a space between them."""
        return self._spelling != "metaspace"

    def encode(self, text: str, place: str = "text") -> NDArray[np.int64]:
        """See `Vocabulary.encode`; the error names the text as a whole, since subwords are no characters."""
        numbers = self.tokens_of(text)
        unknown = _load(self.folder, place).unknown
        if unknown is not None and (numbers == unknown).any():
            raise ComponentError(
                place,
                f"{text!r} has a part that the tokenizer in {self.folder} does not know ({self.tokens[unknown]}); use "
                "characters that it knows, or another tokenizer",
            )
        return numbers

    def tokens_of(self, text: str) -> NDArray[np.int64]:
        """(n,) token numbers of text, without special tokens."""
        encoded = _load(self.folder, "dataset.tokenizer").tokenizer.encode(text, add_special_tokens=False)
        return np.array(encoded.ids, dtype=np.int64)

    def tokens_for_classes(self, text: str) -> NDArray[np.int64]:
        """(n,) token numbers of text with the special tokens of the model, such as `[CLS]` and `[SEP]`."""
        encoded = _load(self.folder, "dataset.tokenizer").tokenizer.encode(text, add_special_tokens=True)
        return np.array(encoded.ids, dtype=np.int64)

    def cut_for_classes(self, numbers: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """At most `length` tokens of such a text, from the first on; special tokens at the end stay."""
        if len(numbers) <= length:
            return numbers
        ending = _load(self.folder, "dataset.tokenizer").ending
        return np.concatenate([numbers[: length - len(ending)], np.array(ending, dtype=np.int64)])

    def decode(self, numbers: Iterable[int] | NDArray[Any]) -> str:
        """The text of these numbers; bytes that are no UTF-8 become the replacement character."""
        tokens = [self.tokens[int(number)] for number in numbers]
        if self._spelling == "bytes":
            return b"".join(_bytes_of(token) for token in tokens).decode(errors="replace")
        if self._spelling == "wordpiece":
            return re.sub(r" ##(?=\S)", "", " ".join(tokens))
        if self._spelling == "metaspace":
            content = b"".join(_of_byte(token) for token in tokens)
            return content.decode(errors="replace")
        return "".join(tokens)

    @cached_property
    def _spelling(self) -> str:
        """How tokens spell spaces: by the bytes of GPT-2, by `##` inside of words, or by `▁`."""
        beginnings = {"Ġ": "bytes", "##": "wordpiece", "▁": "metaspace"}
        counts = {name: sum(token.startswith(start) for token in self.tokens) for start, name in beginnings.items()}
        best = max(counts, key=lambda name: counts[name])
        return best if counts[best] else "plain"


@lru_cache(maxsize=8)
def text_coder(tokens: tuple[str, ...], tokenizer: str = "") -> Vocabulary | None:
    """The vocabulary of these tokens, those of a tokenizer where a folder is named; None without tokens.

    >>> text_coder(("the", "pin")).kind, text_coder(())
    ('words', None)
    """
    if not tokens:
        return None
    return Subwords(tokens=tokens, kind="subwords", folder=tokenizer) if tokenizer else Vocabulary.of(tokens)


def tokenizer_files(folder: str) -> tuple[Path, ...]:
    """The file of the tokenizer in a folder; none where no folder is named."""
    return (model_folder(folder) / FILE,) if folder else ()


@dataclass(frozen=True)
class _Loaded:
    """A tokenizer in memory.

    `unknown` is the number of the token for what it does not know, if it has one. `ending` are the special tokens that
    it puts after a text.
    """

    tokenizer: Any
    unknown: int | None
    ending: tuple[int, ...]


def _load(folder: str, place: str) -> _Loaded:
    """The tokenizer in a folder, read again where the file has changed."""
    file = model_folder(folder) / FILE
    if not file.is_file():
        other = " Its vocab.txt is of an older kind; save it again" if file.with_name("vocab.txt").is_file() else ""
        raise ComponentError(
            place,
            f"there is no file {file.absolute()}.{other or ' Write the folder of a model that has one, or save one'} "
            "by AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)",
        )
    status = file.stat()
    try:
        return _read(file, status.st_size, status.st_mtime_ns)
    except ModuleNotFoundError as error:
        message = "the package tokenizers is not installed; run: pip install 'fedmem[hf]'"
        raise ComponentError(place, message) from error
    except Exception as error:  # what tokenizers raises for a file that is none has no class of its own
        raise ComponentError(place, f"{file.absolute()} is no tokenizer ({error}); save it again") from error


@lru_cache(maxsize=4)
def _read(file: Path, *_: int) -> _Loaded:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    # both may be stored in the file, and would cut or lengthen texts
    tokenizer.no_truncation()
    tokenizer.no_padding()
    unknown = getattr(tokenizer.model, "unk_token", None)
    encoded = tokenizer.encode("a", add_special_tokens=True)
    is_text = [not special for special in encoded.special_tokens_mask]
    last = max((place for place, text in enumerate(is_text) if text), default=len(is_text) - 1)
    return _Loaded(tokenizer, tokenizer.token_to_id(unknown) if unknown else None, tuple(encoded.ids[last + 1 :]))


def _tokens_in(loaded: _Loaded) -> tuple[str, ...]:
    """The tokens by number; numbers that stand for none are named by themselves."""
    numbers = loaded.tokenizer.get_vocab(with_added_tokens=True)
    tokens = {number: token for token, number in numbers.items()}
    return tuple(tokens.get(number, f"<unused {number}>") for number in range(max(tokens) + 1))


@lru_cache(maxsize=1)
def _bytes_by_sign() -> dict[str, int]:
    """The sign by which byte-level tokenizers write each byte, after Radford et al. (2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + i): value for i, value in enumerate(others)}


def _bytes_of(token: str) -> bytes:
    signs = _bytes_by_sign()
    return b"".join(bytes([signs[sign]]) if sign in signs else sign.encode() for sign in token)


def _of_byte(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
