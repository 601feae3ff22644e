"""A file in `fedmem/exports/` is a target: the command, the extras and the messages follow from it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fedmem.errors import ComponentError
from fedmem.exports import target_names
from fedmem.sharing import targets
from fedmem.sharing.targets import install_name, require_package, target_of, tracking_names

ROOT = Path(__file__).parents[2]


def test_each_extra_of_a_target_is_in_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for target in map(target_of, target_names()):
        assert not target.extra or any(
            target.package in text for text in project["optional-dependencies"][target.extra]
        )


def test_page_and_targets_agree() -> None:
    page = (ROOT / "docs" / "export-and-share.md").read_text("utf-8")
    assert [name for name in target_names() if f"| `{name}` |" not in page] == []


def test_a_wrong_name_gets_the_choices() -> None:
    with pytest.raises(ComponentError, match=r"did you mean 'tensorboard'.*csv, mlflow"):
        target_of("tensorbord")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "find_spec", lambda name: None)
    assert require_package("csv").package == ""
    for name in target_names():
        target = target_of(name)
        if target.package:
            with pytest.raises(
                ComponentError, match=rf"--to: {name} needs .* extra {target.extra}: pip install '?{target.package}"
            ):
                require_package(name)


def test_install_names_are_those_of_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmem.apps.installation.extra_requirements", lambda extra: [f"{extra}>=1", "b"])
    assert install_name(target_of("wandb")) == "'wandb>=1' 'b'"
    monkeypatch.setattr("fedmem.apps.installation.extra_requirements", lambda extra: [])
    assert install_name(target_of("wandb")) == "wandb"


def test_targets_that_show_a_run_while_it_trains() -> None:
    assert tracking_names() == ["mlflow", "tensorboard"]
