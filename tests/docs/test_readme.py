"""Every command and every piece of Python in the README runs (the two make commands apart, which CI runs)."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "scenarios", tmp_path / "scenarios")
    return tmp_path


def test_there_is_something_to_run() -> None:
    assert len(COMMANDS) >= 4
    assert len(blocks("python")) >= 3


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, folder: Path) -> None:
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


@pytest.mark.parametrize("code", blocks("python"))
def test_python_runs(code: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_file_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`((?:fedmem|strategies|scenarios|docs|tests)/[\w./-]+\.\w+)`", README))
    named |= set(re.findall(r"\]\(((?!http)[^)]+)\)", README))
    missing = sorted(name for name in named if not (ROOT / name).exists() and name != "strategies/halfway.py")
    assert not missing
    listed = re.search(r"^fedmem/\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert listed
    for name in re.findall(r"\b([a-z_]+\.py)\b", listed[1]):
        assert (ROOT / "fedmem" / name).exists(), name


def test_the_first_line_of_each_scenario_is_the_command_that_runs_it() -> None:
    for path in sorted((ROOT / "scenarios").glob("*.yaml")):
        assert path.read_text(encoding="utf-8").startswith(f"# fedmem run scenarios/{path.name}\n"), path.name
