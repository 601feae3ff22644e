"""Tests of `fedmem/scenario/validation.py`."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from fedmem.scenario.validation import join, problems_of


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 1
    how: Literal["sum", "mean"] = "sum"


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    inner: Inner = Inner()
    items: tuple[Inner, ...] = ()


def found(value: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(value)
    problems = problems_of(caught.value, value, Outer, {"name": "what it is called"}, prefix="top")
    return {problem.path: problem.message for problem in problems}


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ({}, "top.name", "is missing; give it: what it is called"),
        ({"name": "a", "nmae": 1}, "top.nmae", "unknown key (did you mean 'name'?); choose from: name, inner, items"),
        (
            {"name": "a", "inner": {"sze": 1}},
            "top.inner.sze",
            "unknown key (did you mean 'size'?); choose from: size, how",
        ),
        ({"name": "a", "items": [{}, {"size": "x"}]}, "top.items[1].size", "got 'x'"),
        ({"name": "a", "inner": 3}, "top.inner", "should be a mapping"),
        ({"name": "a", "inner": {"how": "men"}}, "top.inner.how", "(did you mean 'mean'?)"),
    ],
)
def test_mistake_is_reported_with_its_path_and_a_fix(value: Any, path: str, message: str) -> None:
    problems = found(value)
    assert list(problems) == [path]
    assert message in problems[path]


def test_all_mistakes_are_reported_at_once() -> None:
    assert set(found({"inner": {"size": "x"}, "more": 1})) == {"top.name", "top.inner.size", "top.more"}


def test_index_joins_without_a_dot() -> None:
    assert join("probes", "[1].kind") == "probes[1].kind"
