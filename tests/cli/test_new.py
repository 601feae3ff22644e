"""Tests of `fedmem/cli/new.py`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.main_helpers import call


def test_new_scenario_is_accepted_by_check(small: Path) -> None:
    made = call("new", "mine", "--from", "small")
    assert made.exit_code == 0, made.stderr
    assert made.stdout.splitlines() == ["mine.yaml", "scenario.schema.json"]
    assert "Next: fedmem check mine.yaml" in made.stderr
    checked = call("check", "mine")
    assert checked.exit_code == 0, checked.stderr
    assert "  id         mine/" in checked.stdout


def test_new_never_overwrites(small: Path) -> None:
    before = Path("small.yaml").read_bytes()
    for name in ("small", "small.yaml"):
        done = call("new", name)
        assert done.exit_code == 2
        assert "never overwritten; choose another name" in done.stderr
    assert Path("small.yaml").read_bytes() == before
    assert not Path("scenario.schema.json").exists()
