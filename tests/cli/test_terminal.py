"""Tests of `fedmem/cli/terminal.py`."""

from __future__ import annotations

import os
import sys

import pytest

from fedmem.cli import terminal


def on_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))


def test_width_is_the_terminals_up_to_120_and_100_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal.width() == 100
    for columns, expected in ((70, 70), (120, 120), (300, 120)):
        on_terminal(monkeypatch, columns)
        assert terminal.width() == expected


def test_wrapped_lines_are_indented_and_keep_long_words(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch, 20)
    lines = terminal.wrap_line("one two three four five " + "x" * 30, "  ").splitlines()
    assert lines[0] == "  one two three four"
    assert all(line.startswith("    ") for line in lines[1:])
    assert lines[-1] == "    " + "x" * 30
    assert " ".join(" ".join(lines).split()) == "one two three four five " + "x" * 30
