"""What the tests of all experiments need: the files of the one that a test module names as its `FOLDER`."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="module")
def modules(request: pytest.FixtureRequest) -> SimpleNamespace:
    """The modules of the experiment."""
    package = f"experiments.{request.module.FOLDER.name}"
    return SimpleNamespace(
        **{name: importlib.import_module(f"{package}.{name}") for name in ("analysis", "figure", "run")}
    )
