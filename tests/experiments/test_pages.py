"""Every interval on the page of an experiment is a row of its tables, and all experiments have one frame."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path

import pandas as pd
import pytest

from fedmem.studies.experiment import stale_intervals
from fedmem.studies.page_text import filled_page
from fedmem.studies.study_folder import find_study, study_names

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted(path.parent for path in (ROOT / "experiments").glob("*/run.py"))


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=lambda folder: folder.name)
def test_every_interval_of_the_page_is_in_its_tables(folder: Path) -> None:
    assert stale_intervals(folder) == []


@pytest.mark.parametrize("folder", [f for f in EXPERIMENTS if (f / "page.md").exists()], ids=lambda folder: folder.name)
def test_the_page_is_its_text_with_the_numbers_of_its_tables(folder: Path) -> None:
    tables = {path.stem: pd.read_csv(path) for path in folder.glob("*.csv")}
    text = (folder / "page.md").read_text(encoding="utf-8")
    assert filled_page(text, tables) == (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", [f for f in EXPERIMENTS if (f / "page.md").exists()], ids=lambda folder: folder.name)
def test_pages_with_verdicts_show_those_of_all_claims(folder: Path) -> None:
    page = (folder / "README.md").read_text(encoding="utf-8")
    if "{{verdicts gates" in (folder / "page.md").read_text(encoding="utf-8"):
        claims = set(pd.read_csv(folder / "gates.csv").claim)
        assert {claim for claim in claims if f"| {claim} |" not in page} == set()


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=lambda folder: folder.name)
def test_the_frame_is_shared(folder: Path) -> None:
    assert folder.name in study_names(folder.parent), "run.py has no STUDY"
    code = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    other = r"argparse|__main__|ProcessPoolExecutor|FigureCanvasAgg|savefig|to_csv|def holm|def verdict"
    assert re.findall(other, code) == []
    assert {"README.md", "run.py", "analysis.py", "figure.py", "scenario.yaml"} <= {
        path.name for path in folder.iterdir()
    }


@pytest.mark.parametrize("name", study_names(ROOT / "experiments"))
def test_study_is_run_by_the_name_on_its_page(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    study, folder = find_study(name)
    assert re.search(
        rf"^fedmem study run {name}(?: |$)", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert study.question.endswith("?")
    assert "\n" not in study.question
    assert pickle.loads(pickle.dumps(study.work)) is study.work, "other processes cannot call it"
    cells = list(study.cells(study.seeds))
    assert len(set(cells)) == len(cells) > 0
    for cell in cells:
        inspect.signature(study.scenarios).bind(*cell, settings=())
        inspect.signature(study.work).bind(*cell, out=folder, settings=())
