"""Shell completion, asked in the way in which a shell asks."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fedmem.cli import completion
from fedmem.contracts.families import FAMILIES
from fedmem.scenario import catalogue
from fedmem.shipped.files import scenario_names

ROOT = Path(__file__).resolve().parents[2]
CODE = "import sys; sys.argv[0] = 'fedmem'; from fedmem.cli.main import main; main()"


def ask(typed: Sequence[str], folder: Path, shell: str = "bash") -> list[str]:
    """What a shell offers after these words, the last of which is being typed."""
    words = ["fedmem", *typed]
    protocol = {
        "bash": {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1), "COMP_LINE": " ".join(words)},
        "zsh": {},
        "fish": {"_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "_FEDMEM_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": " ".join(words),
        **protocol,
    }
    done = subprocess.run([sys.executable, "-c", CODE], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scenarios").mkdir()
    for name in ("a.yaml", "scenarios/b.yaml", "scenarios/c.txt"):
        (tmp_path / name).write_text("")
    run = tmp_path / "runs" / "a" / "0123"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text("{}")
    (tmp_path / "runs" / "a" / ".0123.partial").mkdir()
    (tmp_path / "runs" / "a" / ".0123.partial" / "manifest.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["sho"], ["show"]),
        (["list", "sa"], ["sampler"]),
        (["show", ""], list(FAMILIES)),
        (["show", "sampler", "un"], ["uniform"]),
        (["show", "sampler", ""], list(catalogue.kinds("sampler"))),
        (["show", "nothing", ""], []),
        (["fetch", "mn"], ["mnist5k"]),
        (["run", ""], ["a.yaml", "scenarios/b.yaml", *scenario_names()]),
        (["run", "quick"], ["quickstart"]),
        (["run", "scenarios/"], ["scenarios/b.yaml"]),
        (["check", "a.yaml", "sc"], ["scenarios/b.yaml", "scaffold"]),
        (["report", ""], ["runs/a/0123"]),
        (["measure", "runs/a/"], ["runs/a/0123"]),
    ],
)
def test_bash_completes_commands_families_and_kinds(folder: Path, typed: list[str], offered: list[str]) -> None:
    assert ask(typed, folder) == offered


def test_other_shells_complete_kinds_with_descriptions(folder: Path) -> None:
    assert any(
        "uniform" in line and "A cohort of fixed size." in line for line in ask(["show", "sampler", "u"], folder, "zsh")
    )
    assert any("A cohort of fixed size." in line for line in ask(["show", "sampler", "u"], folder, "fish"))


def test_the_script_for_a_shell_names_the_program(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "_FEDMEM_COMPLETE": "source_bash"}
    done = subprocess.run([sys.executable, "-c", CODE], cwd=folder, env=env, capture_output=True, text=True)
    assert "_FEDMEM_COMPLETE=complete_bash" in done.stdout


def test_unreadable_folders_complete_to_nothing(tmp_path: Path) -> None:
    assert completion.scenarios(f"{tmp_path}/nowhere/") == completion.runs(f"{tmp_path}/nowhere/x") == []
    (tmp_path / "s.yaml").write_text("")
    assert completion.scenarios(f"{tmp_path}/s") == [f"{tmp_path}/s.yaml"]


def test_help_answers_quickly_and_loads_nothing_to_complete_with(folder: Path) -> None:
    code = f"{CODE[:-6]}import atexit; atexit.register(lambda: print(sorted(m for m in sys.modules if m in wrong)))"
    code += "; wrong = {'numpy', 'pydantic', 'fedmem.cli.completion', 'fedmem.scenario.catalogue'}; main()"
    # beside the libraries that help is drawn with, turn by turn: the machine may be slow or busy
    toolkit = "import rich.console, rich.panel, rich.table, typer; print([])"
    costs = [(cost_of(code), cost_of(toolkit)) for _ in range(3)]
    assert min(cost for cost, _ in costs) < 5 * min(cost for _, cost in costs)


def cost_of(code: str) -> float:
    """Seconds of the processor in a process of its own, which prints an empty list last."""
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    after = os.times()
    assert done.stdout.splitlines()[-1] == "[]"
    return after.children_user + after.children_system - before.children_user - before.children_system
