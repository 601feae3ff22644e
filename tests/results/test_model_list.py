"""Tests of `fedmem/results/model_list.py`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import fedmem
from fedmem.errors import ComponentError, RunError
from fedmem.execution.run import run
from tests.execution.model_saver_helpers import SAVE, SMALL
from tests.tiny import tiny


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny(**SMALL, save=SAVE), out=tmp_path_factory.mktemp("saved"))


def test_one_model_of_a_client_is_found_by_its_number(saved: Path) -> None:
    run_of = fedmem.read(saved)
    every = list(run_of.models(level="local"))
    place = every[4]
    (found,) = run_of.models(round_number=place.round, run=place.run, client=place.client)
    assert (found.level, found.client) == ("local", place.client)
    assert [model.client for model in run_of.models(round_number=-2, level="global", client=-1)] == [-1] * 5


def test_models_are_read_one_at_a_time(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "run"))
    models = fedmem.read(folder).models(level="global")
    assert next(models).round == 2
    (folder / "models" / "round-4-global.safetensors").unlink()
    with pytest.raises(RunError, match=r"round-4-global.safetensors is missing; put a copy of the file back"):
        list(models)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"round_number": 3}, "round_number: no model of 3 was saved; choose from 2, 4"),
        ({"level": "sum"}, "level: no model of sum was saved; choose from global, local"),
        ({"run": 5}, "run: no model of 5 was saved; choose from 0, 1, 2, 3, 4"),
        ({"client": "x"}, "no client is called 'x'"),
        ({"client": 9}, "client: no model of 9 was saved"),
        ({"client": 0, "level": "global"}, "client: no model of 0 was saved; choose from -1"),
    ],
)
def test_a_model_that_was_not_saved_is_an_error(choice: dict[str, Any], message: str, saved: Path) -> None:
    with pytest.raises(ComponentError, match=message):
        list(fedmem.read(saved).models(**choice))


def test_a_run_without_models_says_how_to_have_them(tmp_path: Path) -> None:
    folder = run(tiny(**SMALL), out=tmp_path)
    with pytest.raises(RunError, match=r"holds no models; run it again with save.models=\{rounds: \[-1\]\}"):
        fedmem.read(folder).models()
