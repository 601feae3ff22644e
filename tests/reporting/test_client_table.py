"""`fedmem top --by-client`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.main_helpers import call
from tests.results.top_helpers import estimated


def test_top_by_client_prints_the_highest_first(tmp_path: Path) -> None:
    run = estimated(tmp_path / "run")
    done = call("top", str(run.path), "--by-client", "-n", "2", "--kind", "typical", "--level", "global")
    assert done.exit_code == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    start = lines.index(["typical,", "global"])
    assert [line[0] for line in lines[start + 1 : start + 3]] == ["Nord", "Süd"]
    assert lines[start + 1][1:5] == ["5", "1.000", "[no", "interval]"]
    assert lines[start + 3] == ["…", "and", "1", "more"]
    assert call("top", str(run.path), "--by-client", "--client", "Nord").exit_code == 2


def test_what_is_the_same_in_each_row_is_in_the_note(tmp_path: Path) -> None:
    """How many clients p is adjusted for is said once, and not in each row."""
    run = estimated(tmp_path / "run")
    text = " ".join(call("top", str(run.path), "--by-client", "--level", "global").stdout.split())
    tests = set(run.by_client(level="global")["tests"])
    assert "adjusted p" in text
    assert f"adjusted for all {min(tests)}" in text
    assert not any(line.split()[-2:] == ["p", "clients"] for line in text.splitlines())
