"""The page about the first minute: its commands run in an empty folder, and its numbers are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedmem.scenario.loading import load_scenario
from fedmem.studies.demo import NULL, THRESHOLD
from tests.cli.main_helpers import call

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "first-minute.md").read_text(encoding="utf-8")


def test_commands_of_the_page_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fedmem.studies.demo.run_controls", lambda report: ())  # it has tests of its own
    commands = re.findall(r"^\$ fedmem (.*)$", PAGE, flags=re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        done = call(*command.split())
        assert done.exit_code == 0, done.output


def test_numbers_of_the_page_are_those_of_the_demo() -> None:
    scenario = load_scenario("demo")
    text = " ".join(PAGE.split())
    assert f"each in {scenario.runs} runs" in text
    assert f"at most {THRESHOLD}." in text
    assert f"{scenario.bootstrap:,} times".replace(",", " ") in text
    assert f"in round {NULL[0].partition('=')[2]} alone" in text
    assert f"at most 1 in {round(1 / (2 * THRESHOLD)):,}" in text
