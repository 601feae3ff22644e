"""Every interval on the page of an experiment is a row of its tables, and all experiments have one frame."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedmem.studies.experiment import stale_intervals

EXPERIMENTS = sorted(path.parent for path in (Path(__file__).resolve().parents[2] / "experiments").glob("*/run.py"))


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=lambda folder: folder.name)
def test_every_interval_of_the_page_is_in_its_tables(folder: Path) -> None:
    assert stale_intervals(folder) == []


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=lambda folder: folder.name)
def test_the_frame_is_shared(folder: Path) -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    assert "fedmem.studies.experiment" in code
    assert not re.search(
        r"ArgumentParser\(|ProcessPoolExecutor|FigureCanvasAgg|savefig|to_csv|def holm|def verdict", code
    )
    assert {"README.md", "run.py", "analysis.py", "figure.py", "scenario.yaml"} <= {
        path.name for path in folder.iterdir()
    }
