"""`fedmem push` and `fedmem pull` print the place, and errors without keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.main_helpers import call
from tests.results.read_helpers import write

pytest.importorskip("fsspec", reason="the extra remote is not installed")


def test_a_run_goes_out_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("run"))
    sent = call("push", "run", "store/run")
    assert (sent.exit_code, sent.stdout) == (0, "store/run\n")
    assert "all checksums verified" in sent.stderr
    assert call("push", "run", "store/run").exit_code == 2
    assert call("push", "run", "store/run", "--force").exit_code == 0
    back = call("pull", f"file://{tmp_path}/store/run", "back")
    assert (back.exit_code, back.stdout) == (0, "back\n")
    assert {path.name for path in Path("back").iterdir()} == {path.name for path in Path("run").iterdir()}
    wrong = call("pull", "file:///nowhere?key=s3cr3t", "other")
    assert wrong.exit_code == 2
    assert "s3cr3t" not in wrong.output
