"""Tests of `fedmem/modalities/text/tokenizer.py`, with tokenizers that are learnt here."""

from pathlib import Path

import pytest

from fedmem.errors import ComponentError
from fedmem.injections._template import parse_template
from fedmem.modalities.text.tokenizer import Subwords, text_coder
from fedmem.modalities.texts import Texts
from tests.models.huggingface_helpers import save_tokenizer


@pytest.fixture(scope="module", params=["bytes", "wordpiece", "metaspace"])
def subwords(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subwords:
    folder = tmp_path_factory.mktemp(request.param)
    save_tokenizer(folder, request.param)
    return Subwords.read(str(folder))


TEXT = "the lazy fox is 42 over the dog"


def test_encoding_what_is_decoded_gives_the_same_tokens(subwords: Subwords) -> None:
    numbers = subwords.tokens_of(TEXT)
    decoded = subwords.decode(numbers)
    assert decoded.strip() == TEXT
    assert subwords.tokens_of(decoded.strip()).tolist() == numbers.tolist()
    assert len(numbers) < len(TEXT), "frequent pieces are one token"


def test_bytes_decode_any_text(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    subwords = Subwords.read(str(tmp_path))
    for text in ("  two spaces\n", "naïve — 日本", "\x00"):
        assert subwords.decode(subwords.tokens_of(text)) == text


def test_decoding_needs_no_file(subwords: Subwords) -> None:
    numbers = subwords.tokens_of(TEXT)
    stored = Texts(vocabulary=subwords.tokens, tokenizer="moved/away")
    assert stored.decode(numbers) == subwords.decode(numbers)
    assert text_coder((), "moved/away") is None


def test_special_tokens_stay_where_a_text_is_cut(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, "wordpiece")
    subwords = Subwords.read(str(tmp_path))
    whole = subwords.tokens_for_classes(TEXT)
    named = [subwords.tokens[number] for number in whole]
    assert (named[0], named[-1]) == ("[CLS]", "[SEP]")
    assert len(whole) == len(subwords.tokens_of(TEXT)) + 2, "the truncation of the file is not applied"
    cut = subwords.cut_for_classes(whole, 5)
    assert cut.tolist() == [*whole[:4], whole[-1]]


def test_unknown_pieces_of_a_secret_are_refused(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, "wordpiece")
    with pytest.raises(ComponentError, match="does not know") as caught:
        Subwords.read(str(tmp_path)).encode("日本", "injections.template")
    assert caught.value.path == "injections.template"


def test_places_of_a_template_are_tokens_of_their_own(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    subwords = Subwords.read(str(tmp_path))
    space = parse_template("the PIN is {digits:2}", {}, subwords).space
    assert space.size == 100
    assert subwords.decode(space.member_tokens(42)) == "the PIN is 42"
    save_tokenizer(tmp_path / "other", "metaspace")
    with pytest.raises(ComponentError, match="puts a space before each text"):
        parse_template("the PIN is {digits:2}", {}, Subwords.read(str(tmp_path / "other")))


def test_folders_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="there is no file"):
        Subwords.read(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ComponentError, match="is no tokenizer"):
        Subwords.read(str(tmp_path))
