"""`--track` shows a run in another tool; a wrong tool is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmem.cli.tracking import tracking
from tests.cli.main_helpers import call


def test_a_run_is_tracked(small: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    result = call("run", "small.yaml", "--quiet", "--track", "tensorboard:logs")
    assert result.exit_code == 0
    folder = Path(result.stdout.strip())
    assert list(Path("logs/small", folder.name).glob("events*"))


@pytest.mark.parametrize("command", ["run", "compare", "sweep"])
def test_a_wrong_tool_is_refused_before_training(command: str, small: Path) -> None:
    Path("sweep.yaml").write_text("base: small.yaml\nseeds: 0:1\naxes: [{path: client.lr, values: [0.1]}]\n")
    result = call(command, "sweep.yaml" if command == "sweep" else "small.yaml", "--track", "abacus")
    assert result.exit_code == 2
    assert "--track: there is no such tool 'abacus'; choose from: mlflow, tensorboard" in result.stderr
    assert "yaml" not in result.stderr
    assert not Path("runs").exists()


def test_nothing_is_tracked_by_default() -> None:
    with tracking(None) as listeners:
        assert listeners == []
