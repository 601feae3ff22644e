"""What the tests of all experiments need: the files of the one that a test module names as its `FOLDER`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="module")
def modules(request: pytest.FixtureRequest) -> Iterator[SimpleNamespace]:
    """The files of the experiment, which find each other because they lie in one folder."""
    names, folder = ("analysis", "figure", "run"), str(request.module.FOLDER)
    sys.path.insert(0, folder)
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(folder)
        for name in names:
            sys.modules.pop(name, None)
