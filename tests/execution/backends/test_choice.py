"""Tests of `fedmem/execution/backends/choice.py`."""

from __future__ import annotations

import pytest

from fedmem.errors import ComponentError
from fedmem.execution.backends import backend_of, backend_without_forks, choice
from fedmem.execution.backends.choice import VARIABLE


@pytest.mark.parametrize("text", ["forks", "processes", "ray", "ray:10.0.0.7:6379", "ray:ray://10.0.0.7:10001"])
def test_names_are_read_and_given_back(text: str) -> None:
    backend = backend_of(text)
    assert ("forks" if backend is None else backend.name) == text


@pytest.mark.parametrize("text", ["", "rai", "forks:2", "ray:", "processes:4", "ray 10.0.0.7"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ComponentError, match="use forks, processes, ray or ray:ADDRESS"):
        backend_of(text)


def test_the_environment_says_where_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert backend_of(None) is None
    monkeypatch.setenv(VARIABLE, "processes")
    found = backend_of(None)
    assert found is not None
    assert found.name == "processes"
    assert backend_of("forks") is None


@pytest.mark.parametrize(
    ("workers", "can_fork", "can_start", "name"),
    [
        (4, False, True, "processes"),
        (1, False, True, None),
        (0, False, True, None),
        (4, True, True, None),
        (4, False, False, None),
    ],
)
def test_processes_are_started_where_none_can_be_forked(
    workers: int, can_fork: bool, can_start: bool, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "can_fork", lambda: can_fork)
    monkeypatch.setattr(choice, "can_start", lambda: can_start)
    found = backend_without_forks(workers)
    assert (None if found is None else found.name) == name
