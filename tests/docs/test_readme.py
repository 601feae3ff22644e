"""Every command and every piece of Python in the README runs (the two make commands apart, which CI runs)."""

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

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "scenarios", tmp_path / "scenarios")
    return tmp_path


def test_readme_has_commands_and_python_to_run() -> None:
    assert len(COMMANDS) >= 4
    assert len(blocks("python")) >= 3


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_succeed(command: str, folder: Path) -> None:
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
@pytest.mark.parametrize("code", [block for block in blocks("python") if "from ._rule import" not in block])
def test_python_of_the_readme_succeeds(code: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


ADDED = sorted(path for path in (ROOT / "tests" / "added").rglob("*.py") if path.stem != "__init__")
"""Throwaway components of the folders of fedmem, beside the strategy of the README."""

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
    (code,) = [block for block in blocks("python") if "class Halfway" in block]
    for name in ("fedmem", "strategies", "tests"):
        shutil.copytree(
            ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "added")
        )
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "scenarios").mkdir()
    added = [tmp_path / "strategies" / "halfway.py"]
    added[0].write_text(code, encoding="utf-8")
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


def test_the_strategy_of_the_readme_goes_half_of_the_way() -> None:
    import torch

    from fedmem.strategies._rule import Round

    (code,) = [block for block in blocks("python") if "class Halfway" in block]
    module = types.ModuleType("halfway")
    sys.modules["halfway"] = module  # dataclasses look their module up
    module.__package__ = "fedmem.strategies"
    exec(code, module.__dict__)
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


def test_every_option_that_the_readme_names_exists() -> None:
    program = str(Path(sys.executable).with_name("fedmem"))
    rows = re.findall(r"^\| (`fedmem .*?`) \| (.*) \|$", README, flags=re.MULTILINE)
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


def there(name: str) -> bool:
    """Whether a file exists, and the heading of it that follows `#`."""
    file, _, anchor = name.partition("#")
    if not anchor or not (ROOT / file).is_file():
        return not anchor and (ROOT / file).exists()
    headings = re.findall(r"^#+ (.*)$", (ROOT / file).read_text("utf-8") if file else README, flags=re.MULTILINE)
    return anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_file_that_the_readme_names_exists() -> None:
    assert there("docs/how-a-round-runs.md#listening-to-a-run")
    assert not there("docs/how-a-round-runs.md#nothing-of-the-kind")
    named = set(re.findall(r"`((?:fedmem|strategies|scenarios|docs|tests)/[\w./-]+\.\w+)`", README))
    named |= set(re.findall(r"\]\(((?!http)[^)]+)\)", README))
    missing = sorted(name for name in named if not there(name) and name != "strategies/halfway.py")
    assert not missing
    listed = re.search(r"^fedmem/\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert listed
    for name in re.findall(r"\b([a-z_]+\.py)\b", listed[1]):
        assert (ROOT / "fedmem" / name).exists(), name
