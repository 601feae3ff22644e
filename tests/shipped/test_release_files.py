"""The files around the package agree: metadata, citation, recipes, and the workflows that call them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
RECIPES = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in (ROOT / ".github/workflows").glob("*.yml")}


def commands(workflow: dict[str, Any]) -> list[str]:
    """What the steps of a workflow run."""
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


def recipes(text: str) -> set[str]:
    """The recipes that a text calls: the first word after `make` that is no variable."""
    return {name for name in re.findall(r"\bmake(?: VENV=\S+)? ([a-z-]+)", text) if name != "VENV"}


def test_workflows_run_nothing_but_recipes() -> None:
    called = [command for workflow in WORKFLOWS.values() for command in commands(workflow)]
    assert called
    assert [command for command in called if not re.fullmatch(r"make [a-z]+( [A-Z]+=\S+)?", command)] == []
    assert recipes("\n".join(called)) <= RECIPES


def test_workflows_run_what_ci_runs() -> None:
    local = recipes((ROOT / ".ci/run").read_text("utf-8"))
    called = recipes("\n".join(command for workflow in WORKFLOWS.values() for command in commands(workflow)))
    assert {"test", "slow", "package", "matrix"} <= local
    assert local <= called


def test_matrix_is_the_oldest_and_the_newest_flower() -> None:
    (found,) = re.findall(r"^FLOWER \?= (.*)$", MAKEFILE, re.MULTILINE)
    (flower,) = [Requirement(name) for name in PROJECT["dependencies"] if Requirement(name).name == "flwr"]
    bounds = {item.operator: Version(item.version) for item in flower.specifier}
    oldest, newest = map(Version, found.split())
    assert oldest == bounds[">="]
    assert (newest.major, newest.minor + 1) == bounds["<"].release[:2]
    assert WORKFLOWS["test"]["jobs"]["flower"]["strategy"]["matrix"]["version"] == found.split()


def test_claimed_versions_of_python_are_in_the_workflow() -> None:
    claimed = {item.rpartition(" ")[2] for item in PROJECT["classifiers"] if re.search(r"Python :: 3\.", item)}
    assert claimed
    assert claimed <= set(WORKFLOWS["test"]["jobs"]["test"]["strategy"]["matrix"]["python"])
    assert min(claimed, key=Version) == PROJECT["requires-python"].removeprefix(">=")


def test_citation_is_of_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_hooks_call_recipes() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert {hook["entry"].removeprefix("make ") for hook in repo["hooks"]} <= RECIPES
