"""Tests of `fedmem/scenario/yaml_source.py`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.scenario import yaml_source


def test_yaml_values_follow_the_core_schema() -> None:
    read = yaml_source.read_text("[1e-3, no, on, 0x10, 1:30, 2020-01-01, '7', ~, true, .inf, 010, -5, 1., '']", "x")
    assert read.value == [0.001, "no", "on", 16, "1:30", "2020-01-01", "7", None, True, math.inf, 10, -5, 1.0, ""]


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: [1", 1, "not valid YAML"),
        ("a: 1\nb: {c: 1\nd: 2\n", 2, "not valid YAML"),  # the line that opens the bracket
        ("a: 1\nb: 'c\nd: 2\n", 2, "not valid YAML"),
        ("a: 1\nb:\n\t- 2", 3, "not valid YAML"),
        ("a: 1\nb: 2\na: 3", 3, "first in line 1"),
        ("a: {b: 1, b: 2}", 1, "a.b: the key is given twice"),
        ("a: &x [1]\nb: *x", 2, "write the value out"),
        ("a: !!python/object/apply:os.system [ls]", 1, "not allowed"),
        ("a: !!int 3", 1, "not allowed"),
        ("a: 1\n---\na: 2", 2, "second document"),
        ("", None, "empty"),
        ("# nothing\n", None, "empty"),
        ("[" * 30 + "]" * 30, 1, "levels deep"),
        ("[" * 5000, 1, "levels deep"),
        ("a: " + "9" * 500, 1, "too long"),
        ("? [1, 2]\n: 3", 1, "plain words"),
        ("a: \x00", None, "not valid YAML"),
    ],
)
def test_yaml_that_is_not_what_it_looks_like_is_refused(text: str, line: int | None, says: str) -> None:
    found = yaml_source.read_text(text, "x").problems
    assert found[0].line == line
    assert says in str(found[0])


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("ä: 1".encode("latin-1"))
    (tmp_path / "huge.yaml").write_bytes(b"a" * (yaml_source.MAX_BYTES + 1))
    for name, says in (
        ("latin.yaml", "UTF-8"),
        ("huge.yaml", "more than 1000000 bytes"),
        ("no.yaml", "no such file"),
        ("", "folder"),
    ):
        assert says in yaml_source.read_file(tmp_path / name).problems[0].message


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(allow_nan=False), st.text(max_size=20)
)


plain = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)),
)


@settings(max_examples=200, deadline=None)
@given(plain)
def test_any_value_is_equal_after_writing_and_reading(value: object) -> None:
    assert yaml_source.read_text(yaml_source.write([value]), "x").value == [value]
    assert yaml_source.read_value(yaml_source.write_flow([value])) == [value]


@given(st.lists(st.one_of(st.integers(0, 99), st.from_regex(r"[a-z_]{1,9}", fullmatch=True)), min_size=1, max_size=5))
def test_place_is_equal_after_writing_and_reading(parts: list[int | str]) -> None:
    place = ("a", *parts)
    assert yaml_source.place_parts(yaml_source.place_text(place)) == place
