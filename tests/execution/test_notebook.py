"""Tests of `fedmem/execution/notebook.py`: progress in a notebook, and none elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedmem.contracts.events import (
    RoundFinished,
    ScenarioFailed,
    ScenarioFinished,
    ScenariosStarted,
    StageStarted,
    TrainingStarted,
)
from fedmem.execution.notebook import NotebookProgress, notebook_listeners


def test_one_scenario_is_shown_to_its_end() -> None:
    shown: list[tuple[str, str]] = []
    progress = NotebookProgress(show=lambda text, page: shown.append((text, page)), clock=iter(range(100)).__next__)
    progress(TrainingStarted(rounds=4, runs=2))
    progress(RoundFinished(round=1, rounds=4, first=0, last=1))
    progress(RoundFinished(round=4, rounds=4, first=0, last=1))
    progress(StageStarted(text="estimating <b>"))
    progress(ScenarioFinished(folder="runs/a"))
    assert [text.split(":")[0] for text, _ in shown] == ["0 %", "25 %", "100 %", "100 %", "100 %"]
    assert shown[-1][0].endswith("finished: runs/a")
    assert "estimating &lt;b&gt;" in shown[-2][1]


def test_many_scenarios_are_counted() -> None:
    shown: list[str] = []
    progress = NotebookProgress(show=lambda text, page: shown.append(text), clock=iter(range(100)).__next__)
    progress(ScenariosStarted(total=4, finished=1))
    progress(TrainingStarted(rounds=2, runs=2, place=1))
    progress(RoundFinished(round=1, rounds=2, first=0, last=1, place=1))
    progress(ScenarioFailed(error="client 3 failed", place=2))
    progress(ScenarioFinished(folder="runs/b", place=1))
    assert shown[0].startswith("1 of 4 scenarios, 25 %")
    assert shown[2].startswith("1 of 4 scenarios, 38 %")
    assert shown[3].endswith("failed: client 3 failed")
    assert shown[4].startswith("3 of 4 scenarios, 75 %")


def test_quick_rounds_are_skipped_but_not_the_last() -> None:
    shown: list[str] = []
    progress = NotebookProgress(show=lambda text, page: shown.append(text), clock=lambda: 0.0)
    progress(TrainingStarted(rounds=50, runs=1))
    for number in range(1, 51):
        progress(RoundFinished(round=number, rounds=50, first=0, last=0))
    assert len(shown) == 2
    assert shown[1].startswith("100 %")


def test_nothing_is_shown_outside_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    assert notebook_listeners() == ()
    module = pytest.importorskip("IPython.core.getipython")
    monkeypatch.setattr(module, "get_ipython", lambda: None)
    assert notebook_listeners() == ()


CODE = """
import fedmem
folder = fedmem.run(fedmem.load_scenario({file!r}), out={out!r})
run = fedmem.read(folder)
run
"""


@pytest.mark.slow
def test_a_run_in_a_real_notebook_shows_progress_and_itself(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    from tests.cli.main_helpers import SMALL

    (tmp_path / "small.yaml").write_text(SMALL)
    code = CODE.format(file=str(tmp_path / "small.yaml"), out=str(tmp_path / "runs"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client.NotebookClient(notebook, timeout=300).execute()
    outputs: list[Any] = notebook.cells[0].outputs
    pages = ["".join(output.data["text/html"]) for output in outputs if "text/html" in output.get("data", {})]
    assert sum("<progress" in page for page in pages) == 1, "the line is replaced, not repeated"
    assert "finished: " in next(page for page in pages if "<progress" in page)
    assert any("At the owning client" in page for page in pages)
    assert not any(output.output_type == "error" for output in outputs)
