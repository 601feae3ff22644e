"""What `docs/stage.py` makes for the site: pages with links to their new places, and reference pages without gaps."""

from __future__ import annotations

import doctest
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer

import fedmem
from fedmem.cli.main import app
from fedmem.contracts.families import FAMILIES
from fedmem.reporting.measures import shipped_measures
from fedmem.scenario import catalogue
from fedmem.scenario.json_schema import scenario_schema
from tests.docs.job_pages import File, steps
from tests.docs.test_links import dead_links

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stage() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield importlib.import_module("stage")


@pytest.fixture(scope="module")
def source(stage: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "source"
    stage.stage(folder)
    return folder


def headings(page: Path) -> list[str]:
    return re.findall(r"^## (.*)$", page.read_text("utf-8"), flags=re.MULTILINE)


def test_examples_of_the_module_hold(stage: ModuleType) -> None:
    for module in (stage, importlib.import_module("notebooks")):
        failed, tried = doctest.testmod(module)
        assert (failed, tried >= 2) == (0, True)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_kind_has_a_heading_and_its_fields(family: str, source: Path) -> None:
    page = source / "reference" / "components" / f"{family}.md"
    assert headings(page) == [*catalogue.kinds(family)]
    assert not re.findall(r"^\*{0,2}Fields:?\*{0,2}$", page.read_text("utf-8"), flags=re.MULTILINE)


def test_each_measure_key_command_and_name_is_on_its_page(source: Path) -> None:
    folder = source / "reference"
    assert headings(folder / "measures.md") == sorted(shipped_measures())
    keys = re.findall(r"^\| `([\w.]+)`", (folder / "scenario.md").read_text("utf-8"), flags=re.MULTILINE)
    assert {key for key in keys if "." not in key} == set(scenario_schema()["properties"])
    assert {"observe.every", "speed.workers", "privacy.delta"} <= set(keys)
    commands = {name for name, command in typer.main.get_command(app).commands.items() if not command.hidden}  # type: ignore[attr-defined]
    assert {name.removeprefix("fedmem ") for name in headings(folder / "command-line.md")} == commands
    assert headings(folder / "python.md") == [name for name in fedmem.__all__ if not name.startswith("_")]


def test_no_link_between_pages_of_the_site_is_dead(source: Path) -> None:
    pages = sorted(source.rglob("*.md"))
    assert len(pages) > 100
    assert {page.relative_to(source).as_posix(): dead for page in pages if (dead := dead_links(page))} == {}


def test_the_home_page_has_the_scenario_and_its_screen(source: Path) -> None:
    home = (source / "index.md").read_text("utf-8")
    assert home.startswith("# fedmem\n")
    assert "```yaml\nruns: 32\n" in home
    assert "retained" in home
    assert "<!--" not in home


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "jobs").glob("[0-9]*.md")), ids=lambda page: page.stem)
def test_a_notebook_has_each_file_and_command_of_its_page(page: Path, source: Path) -> None:
    book = json.loads((source / "notebooks" / f"{page.stem}.ipynb").read_text("utf-8"))
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    for step in steps(page.read_text("utf-8")):
        if isinstance(step, File):
            assert f"%%writefile {step.name}\n{step.text.rstrip()}" in cells
        else:
            assert any(cell.startswith(f"%%bash\n{step.text.partition('  #')[0]}") for cell in cells), step.text


@pytest.mark.slow
def test_a_notebook_runs_and_stops_at_another_exit_code(stage: ModuleType, tmp_path: Path) -> None:
    notebooks = importlib.import_module("notebooks")
    page = "`a.py`\n\n```python\nraise SystemExit(2)\n```\n\n```console\n$ python a.py  # exit code 2\n```\n"
    book = notebooks.execute(notebooks.notebook("a", page), tmp_path)
    assert (tmp_path / "a.py").exists()
    assert [cell["execution_count"] for cell in book.cells] == [1, 2]
    with pytest.raises(Exception, match="exit"):
        notebooks.execute(notebooks.notebook("a", page.replace("code 2", "code 3")), tmp_path)
