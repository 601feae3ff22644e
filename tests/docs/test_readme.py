"""Every command and piece of Python in the README and the pages that continue it runs (make apart: CI runs it)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from fedmem import load_scenario

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = (
    "README.md",
    *(f"docs/{name}.md" for name in ("scenarios", "python", "in-your-flower-app", "where-things-are")),
)
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


COMMANDS = sorted(
    {
        line[2:]
        for page in PAGES.values()
        for block in blocks(page, "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    }
)
CODE = [(name, block) for name, page in PAGES.items() for block in blocks(page, "python")]
(HALFWAY,) = (block for _, block in CODE if "class Halfway" in block)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "scenarios", tmp_path / "scenarios")
    return tmp_path


def test_pages_have_commands_and_python_to_run() -> None:
    assert len(COMMANDS) >= 5
    assert len(CODE) >= 4


def test_the_readme_has_at_most_900_words_and_16_lines_of_output() -> None:
    assert len(README.split()) <= 900
    (screen,) = blocks(README, "text")
    assert len(screen.splitlines()) <= 16
    assert screen in (ROOT / "docs" / "first-screen.md").read_text("utf-8")


def test_pages_show_the_id_of_the_quickstart_as_it_is_now() -> None:
    quickstart = load_scenario(ROOT / "scenarios" / "quickstart.yaml").id
    for page in ("first-screen", "export-and-share"):
        text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
        assert set(re.findall(r"\bquickstart/([0-9a-f]{12})\b", text)) == {quickstart}


def test_the_scenario_of_the_readme_is_the_quickstart(tmp_path: Path) -> None:
    (block,) = blocks(README, "yaml")
    assert len(block.splitlines()) == 12
    page, shipped = tmp_path / "quickstart.yaml", load_scenario(ROOT / "scenarios" / "quickstart.yaml")
    page.write_text(block, encoding="utf-8")
    assert load_scenario(page).id == shipped.id
    page.write_text(yaml.safe_dump(yaml.safe_load(block) | {"rounds": 39}), encoding="utf-8")
    assert load_scenario(page).id != shipped.id


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_pages_succeed(command: str, folder: Path) -> None:
    program, *arguments = shlex.split(command)
    assert program == "fedmem"
    done = subprocess.run(
        [str(Path(sys.executable).with_name("fedmem")), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout


# a file of `strategies/` is no script: its imports are relative, and tests of its own follow below
@pytest.mark.parametrize(("name", "code"), [(name, code) for name, code in CODE if code != HALFWAY])
def test_python_of_the_pages_succeeds(name: str, code: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name}: {done.stderr}"


ADDED = sorted(path for path in (ROOT / "tests" / "added").rglob("*.py") if path.stem != "__init__")
"""Throwaway components of the folders of fedmem, beside the strategy of `docs/where-things-are.md`."""

WALKERS = (
    "tests/contracts/test_components.py",
    "tests/contracts/test_members.py",
    "tests/contracts/test_core.py",
    *(f"tests/contracts/test_{family}.py" for family in ("strategy", "partitions", "sampler", "probe", "estimator")),
    "tests/cli/test_main.py",
    "tests/scenario/test_json_schema.py",
)
"""The tests that walk all components."""


def test_components_added_as_one_file_pass_the_projects_checks(tmp_path: Path) -> None:
    """In a copy of the project, as if a reader had added them: contracts, doctests, `list`, `show`, schema, ruff."""
    for name in ("fedmem", "strategies", "tests"):
        shutil.copytree(
            ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "added")
        )
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "scenarios").mkdir()
    added = [tmp_path / "strategies" / "halfway.py"]
    added[0].write_text(HALFWAY, encoding="utf-8")
    for path in ADDED:
        added.append(tmp_path / "fedmem" / path.parent.name / path.name)
        shutil.copy(path, added[-1])

    def passes(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # a walker names a component by its kind, or by its class
    names = [name for path in added for name in {path.stem, path.stem.title().replace("_", "")}]
    chosen = " or ".join([*names, "names_no_kind", "no_attribute"])
    files = [str(path) for path in added]
    said = passes("pytest", *WALKERS, *files, "-k", chosen, "-n", "0", "-p", "no:cacheprovider")
    assert int(re.findall(r"(\d+) passed", said)[-1]) >= 12 * len(added)
    listed = {family: passes("fedmem", "list", family) for family in ("strategy", "partition", "probe")}
    assert [name for name, text in listed.items() if re.search(r"^(halfway|alternating|weight_norm) ", text, re.M)] == [
        *listed
    ]
    passes("ruff", "check", "--no-cache", *files)
    passes("ruff", "format", "--check", "--no-cache", *files)


def test_the_strategy_of_the_page_goes_half_of_the_way() -> None:
    import torch

    from fedmem.strategies._rule import Round

    module = types.ModuleType("halfway")
    sys.modules["halfway"] = module  # dataclasses look their module up
    module.__package__ = "fedmem.strategies"
    exec(HALFWAY, module.__dict__)
    one_round = Round(
        number=1,
        before={"w": torch.tensor([[2.0]])},
        sent={"w": torch.tensor([[[4.0], [10.0]]])},
        weights=torch.tensor([[2.0, 1.0]], dtype=torch.float64),
        present=torch.ones((1, 2), dtype=torch.bool),
        clients=torch.arange(2)[None],
    )
    for fraction, after in ((0.5, 4.0), (1.0, 6.0)):  # the mean by size is 6
        assert module.Halfway(fraction=fraction).rule({}, one_round)[0]["w"].item() == after
    del sys.modules["halfway"]


def test_every_option_that_the_table_of_commands_names_exists() -> None:
    program = str(Path(sys.executable).with_name("fedmem"))
    rows = re.findall(r"^\| (`fedmem .*?`) \| (.*) \|$", COMMANDS_PAGE, flags=re.MULTILINE)
    named = {command: row for commands, row in rows for command in re.findall(r"fedmem (\w+)", commands)}
    assert {"run", "measure", "report", "check", "list", "show"} <= set(named)
    for command, row in named.items():
        said = subprocess.run(
            [program, command, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
        ).stdout
        for option in re.findall(r"`(--\w+)", row):
            assert option in said, (command, option)


def test_every_file_of_the_map_exists() -> None:
    page = PAGES["docs/where-things-are.md"]
    named = set(re.findall(r"`((?:fedmem|strategies|scenarios|docs|tests)/[\w./-]+\.\w+)`", page))
    assert len(named) >= 5
    assert sorted(name for name in named if not (ROOT / name).exists()) == ["strategies/halfway.py"]
    (listed,) = re.findall(r"^fedmem/\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    for name in re.findall(r"\b([a-z_]+\.py)\b", listed):
        assert (ROOT / "fedmem" / name).exists(), name
    rooms = set(re.findall(r"\b([a-z]+)/", listed))
    assert rooms >= {path.name for path in (ROOT / "fedmem").iterdir() if (path / "__init__.py").exists()}


def test_the_readme_leads_to_the_map() -> None:
    assert "To change or add something, see [where things are](docs/where-things-are.md)" in " ".join(README.split())
