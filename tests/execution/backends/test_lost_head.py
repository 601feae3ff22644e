"""Questions to the head of a Ray cluster that does not answer, without a cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from fedmem.execution.backends import ray
from fedmem.execution.backends.ray import LostHead


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ray, "HEAD_SECONDS", 0.05)
    yield
    ray._lost.clear()


def fails() -> Any:
    raise ValueError("no such node")


def test_answers_and_errors_come_back() -> None:
    assert ray._answer(lambda: 3) == 3
    with pytest.raises(ValueError, match="no such node"):
        ray._answer(fails)


def test_a_silent_head_is_asked_once() -> None:
    asked: list[int] = []

    def hang() -> None:
        asked.append(1)
        time.sleep(0.3)

    for _ in range(3):
        with pytest.raises(LostHead, match=r"Finished shards are kept; .* the same command continues"):
            ray._answer(hang)
    assert asked == [1]


def test_an_answer_in_time_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "HEAD_SECONDS", 5.0)

    def slow() -> int:
        time.sleep(0.1)
        return 3

    assert ray._answer(slow) == 3
