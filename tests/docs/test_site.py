"""What `docs/stage.py` makes for the site: pages with links to their new places, and reference pages without gaps."""

from __future__ import annotations

import doctest
import importlib.util
import re
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
from tests.docs.test_links import dead_links

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stage", ROOT / "docs" / "stage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(stage: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "source"
    stage.stage(folder)
    return folder


def headings(page: Path) -> list[str]:
    return re.findall(r"^## (.*)$", page.read_text("utf-8"), flags=re.MULTILINE)


def test_examples_of_the_module_hold(stage: ModuleType) -> None:
    failed, tried = doctest.testmod(stage)
    assert (failed, tried >= 3) == (0, True)


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
