"""Tests of `fedmem/cli/studies.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fedmem.cli.main import app
from fedmem.cli.progress import ManyRunsProgress
from fedmem.cli.studies import _continuing
from fedmem.contracts.events import ScenariosStarted
from fedmem.studies import figures
from fedmem.studies.study_screen import LINES
from tests.studies.compare_helpers import small


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures, for who looks at none: they take longer than the runs."""
    monkeypatch.setattr(figures, "draw_all", lambda comparison: iter(()))


@pytest.mark.usefixtures("undrawn")
def test_compare_command_reports_mistakes_and_failed_runs(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(small(rounds=2, runs=2, probes=[], estimators=[{"kind": "memorisation"}]).to_yaml())
    out, run = ["--out", str(tmp_path), "--jobs", "1", "--seeds", "0:2"], CliRunner().invoke
    wrong = run(app, ["compare", str(file), "--vary", "strategy.kind=fedavg,fedavgg", *out])
    assert wrong.exit_code == 2
    assert "unknown kind 'fedavgg' (did you mean" in wrong.output
    failed = run(
        app,
        ["compare", str(file), "--vary", "strategy.kind=fedavg,tests.execution.many_scenarios_helpers:Breaking", *out],
    )
    assert failed.exit_code == 1
    assert "2 of 4 runs failed" in failed.output
    right = run(app, ["compare", str(file), "--vary", "client.lr=0.1,0.3", *out, "--quiet"])
    assert right.exit_code == 0
    assert (Path(right.output.strip()) / "comparison.html").exists()
    shown = run(app, ["compare", str(file), "--vary", "client.lr=0.1,0.3", *out])
    assert len(shown.stdout.splitlines()) <= LINES
    assert "minus lr=0.1, points" not in shown.output
    assert "Front: utility was not measured" in shown.output
    full = run(app, ["compare", str(file), "--vary", "client.lr=0.1,0.3", *out, "--full"])
    assert "minus lr=0.1, points" in full.output
    assert "Utility was not measured" in full.output


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--vary", "strategy.kind=fedavg"], "gives one setting"),
        (["--vary", "strategy.kind=fedavg,fedmedian", "--set", "strategy.kind=krum"], "since --vary strategy.kind"),
        (["--vary", "strategy={kind: fedavg},{kind: krum}", "--set", "strategy.byzantine=1"], "since --vary strategy"),
        (["--vary", "strategy.kind=fedavg,fedmedian", "--set", "seed=3"], "--seeds 3,4,5"),
        (["--vary", "strategy.kind=fedavg,krum", "--measure", "expsure"], "did you mean 'exposure'?"),
        (["--vary", "strategy.kind=fedavg,krum", "--measure", "auc"], "measured by membership"),
        (["--vary", "strategy.knd=fedavg,krum"], "did you mean 'kind'?"),
    ],
)
def test_useless_comparisons_are_refused_before_training(tmp_path: Path, given: list[str], says: str) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(small().to_yaml())
    done = CliRunner().invoke(app, ["compare", str(file), *given, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert says in done.output
    assert not (tmp_path / "out").exists()


def test_interruption_says_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    for finished, said in (
        (0, "interrupted before any scenario was finished; finished shards of runs are kept."),
        (2, "interrupted; 2 finished scenarios kept."),
    ):
        tally = ManyRunsProgress(quiet=True)
        tally(ScenariosStarted(total=3, finished=finished))
        with pytest.raises(typer.Exit), _continuing(tally):
            raise KeyboardInterrupt
        assert said in capsys.readouterr().err
