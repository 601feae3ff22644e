"""Every block of the page on own parts runs as it stands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import fedmem
from fedmem.cli.main import app
from fedmem.scenario import catalogue
from fedmem.studies.grid import cross, parse_vary, settings_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "your-own-parts.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files of the page, in which fedmem is started."""
    for name, text in BLOCKS:
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name, _ in BLOCKS:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_the_scenario_of_the_page_runs(folder: Path) -> None:
    changes = ["rounds=1", "runs=2", "dataset.rows=600", "speed.workers=1"]
    words = [word for text in changes for word in ("--set", text)]
    result = CliRunner().invoke(app, ["run", "mine.yaml", "--out", "runs", *words])
    assert result.exit_code == 0, result.output
    (run,) = folder.glob("runs/mine/*")
    frame = fedmem.read(run).measurements
    norms = frame[frame.metric == "update_norm"]
    assert set(norms.level) == {"local", "global"}
    assert (norms.value > 0).any()


def test_the_comparisons_of_the_page_are_accepted(folder: Path) -> None:
    (first, second) = re.findall(r"--vary (\S*strategy\S*|'.*?')", PAGE)
    for text, count in ((first, 3), (second.strip("'"), 2)):
        cells = cross("mine.yaml", settings_of(parse_vary([text])), [0])
        assert len({cell.scenario.id for cell in cells}) == count


def test_the_other_families_of_the_page_run(folder: Path) -> None:
    changes = ["sampler={kind: 'my_cohorts:Pairs'}", "partition={kind: 'my_cohorts:EvenSplit'}", "probes=[]", "runs=2"]
    changes += ["injections=[{kind: 'my_canaries:Dark', per_client: 1}]", "client={kind: sgd}", "rounds=1"]
    result = CliRunner().invoke(app, ["run", "mine.yaml", *(word for text in changes for word in ("--set", text))])
    assert result.exit_code == 0, result.output


def test_the_dataclass_of_the_page_is_a_model(folder: Path) -> None:
    maker = catalogue.build("model", {"kind": "my_maker:Linear", "bias": False})
    assert maker.build((1, 8, 8), 10) is not None
    assert yaml.safe_load((folder / "mine.yaml").read_text())["model"]["kind"] == "my_model:Net"
