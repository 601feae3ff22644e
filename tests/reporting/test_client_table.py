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
