"""Tests of `fedmem/execution/model_saver.py`: models of a run on disk, however it was trained."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import fedmem
from fedmem.contracts.events import Event, RoundFinished
from fedmem.errors import RunError
from fedmem.execution.bank import simulate
from fedmem.execution.run import run
from fedmem.execution.shard_store import place_of
from fedmem.federation import build as federations
from fedmem.weights import model_files
from tests.execution.model_saver_helpers import SAVE, SMALL
from tests.execution.sharding_helpers import written
from tests.tiny import tiny


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "models").iterdir())}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny(**SMALL, save=SAVE), out=tmp_path_factory.mktemp("saved"))


def test_saved_models_are_those_of_the_training(saved: Path) -> None:
    last = fedmem.read(saved).params()
    for model in fedmem.read(saved).models(round_number=4, level="global"):
        assert all(torch.equal(value, last[name][model.run]) for name, value in model.params.items())
    scenario = tiny(**SMALL)
    trained = simulate(scenario, federations.build(scenario))
    (model,) = fedmem.read(saved).models(round_number=-1, level="global", run=2)
    assert list(model.params) == list(trained.params[2])
    assert all(torch.equal(value, trained.params[2][name]) for name, value in model.params.items())


def test_they_are_the_rounds_levels_and_runs_of_the_scenario(saved: Path) -> None:
    run_of = fedmem.read(saved)
    places = [(model.round, model.level, model.run) for model in run_of.models()]
    assert set(places) == {
        (number, level, run) for number in (2, 4) for level in ("local", "global") for run in range(5)
    }
    took_part = run_of.participation
    for model in run_of.models(level="local", round_number=2, run=1):
        assert model.client in took_part.query("round == 2 and run == 1")["client"].tolist()
    assert len(list(run_of.models(level="local", round_number=2, run=1))) == 3
    assert [entry["models"] for entry in run_of.manifest["models"]] == [5, 15, 5, 15]


@pytest.mark.parametrize(
    "speed", [{"shard": 1, "workers": 1}, {"shard": 4, "workers": 2}, {"server": "messages"}], ids=str
)
def test_bytes_do_not_depend_on_shards_or_the_server(speed: dict[str, Any], saved: Path, tmp_path: Path) -> None:
    folder = run(tiny(**SMALL, save=SAVE, speed=speed), out=tmp_path)
    assert files(folder) == files(saved)
    assert not place_of(folder).exists()


@pytest.mark.nightly
@pytest.mark.flower
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_bytes_do_not_depend_on_the_engine(tmp_path: Path) -> None:
    here = run(tiny(**SMALL, save=SAVE, speed={"executor": "one_by_one"}), out=tmp_path / "here")
    there = run(tiny(**SMALL, save=SAVE, speed={"engine": "flower", "workers": 2}), out=tmp_path / "there")
    assert files(here) == files(there)


def test_what_is_saved_changes_nothing_else(saved: Path, tmp_path: Path) -> None:
    plain = run(tiny(**SMALL, save={"params": True}), out=tmp_path)
    others = {name: data for name, data in written(saved).items() if not name.startswith("models/")}
    assert written(plain) == others
    assert plain.name != saved.name
    assert not (plain / "models").exists()
    assert "models" not in fedmem.read(plain).manifest


def test_an_interrupted_run_continues_to_the_same_files(saved: Path, tmp_path: Path) -> None:
    scenario = tiny(**SMALL, save=SAVE, speed={"shard": 2, "workers": 1})

    class Interrupting:
        def __init__(self) -> None:
            self.rounds = 0

        def __call__(self, event: Event) -> None:
            self.rounds += isinstance(event, RoundFinished)
            if self.rounds == 7:  # in the second shard, after its models of round 2 were written
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(scenario, out=tmp_path, listeners=[Interrupting()])
    (place,) = (tmp_path / "tiny").iterdir()
    left_over = sorted(path.name for path in place.iterdir())
    assert left_over == [".runs-2-3.models", "lock", "runs-0-1"]
    (place / ".runs-0-5.models").mkdir()  # of shards of another size
    folder = run(scenario, out=tmp_path)
    assert files(folder) == files(saved)
    assert fedmem.read(folder).manifest["shards"]["resumed"] == 1


def test_a_full_disk_is_said_and_leaves_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = model_files._bytes_of
    calls = []

    def full(value: Any) -> Any:
        calls.append(value)
        if len(calls) > 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(value)

    monkeypatch.setattr(model_files, "_bytes_of", full)
    with pytest.raises(RunError, match=r"the disk that holds .* is full: .* MB"):
        run(tiny(**SMALL, save=SAVE), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_round_zero_and_personal_layers_can_be_saved(tmp_path: Path) -> None:
    scenario = tiny(
        **SMALL,
        client={"kind": "fedper", "lr": 0.2, "layers": 1},
        save={"models": {"rounds": [0, -1], "levels": ["global"], "runs": 1}},
    )
    run_of = fedmem.read(run(scenario, out=tmp_path))
    assert [model.client for model in run_of.models(round_number=0)] == [-1]
    completed = list(run_of.models(round_number=4))
    assert [model.client for model in completed] == [0, 1, 2, 3, 4]
    assert torch.equal(completed[0].params["hidden1.weight"], completed[1].params["hidden1.weight"])
