"""Tests of `fedmem/cli/changes.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fedmem.cli.changes import changes_of, files_and_changes
from fedmem.scenario.loading import load_scenario
from tests.cli.main_helpers import SMALL, call

ATTACK = ("--model", "mlp", "--shape", "4", "--classes", "2", "--images", "1", "--lr", "1")


def test_changes_after_the_file_are_those_of_set(small: Path) -> None:
    changes = ["rounds=1", "client.lr=0.05", "references=60"]
    bare = call("run", "small.yaml", *changes, "--quiet")
    assert bare.exit_code == 0, bare.stderr
    options = [word for change in changes for word in ("--set", change)]
    again = call("run", *options, "small.yaml", "--quiet")
    assert again.stdout == bare.stdout
    assert "run already" in again.stderr
    assert Path(bare.stdout.strip()).name == load_scenario("small.yaml", changes).id


def test_check_tells_files_from_changes(small: Path) -> None:
    Path("other.yaml").write_text(SMALL)
    done = call("check", "small.yaml", "runs=4", "other.yaml", "rounds=3", "--set", "client.lr=0.5")
    assert done.exit_code == 0, done.stderr
    wanted = [
        f"{name}/{load_scenario(f'{name}.yaml', ['runs=4', 'rounds=3', 'client.lr=0.5']).id}"
        for name in ("small", "other")
    ]
    assert [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("  id ")] == wanted


def test_file_with_an_equals_sign_is_a_file(small: Path) -> None:
    Path("rounds=1.yaml").write_text(f"name: equals\n{SMALL}")
    assert files_and_changes(["rounds=1.yaml", "rounds=2"]) == (["rounds=1.yaml"], ["rounds=2"])
    assert call("check", "rounds=1.yaml").exit_code == 0


def test_changes_keep_their_spelling(small: Path) -> None:
    """A value may be a path, which is not shortened."""
    assert changes_of(["dataset.path=a//b/./c"], None, command="run") == ["dataset.path=a//b/./c"]
    assert files_and_changes(["dataset.path=a//b/./c"])[1] == ["dataset.path=a//b/./c"]


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["run", "small.yaml", "rounds"], ["'rounds'", "neither a file nor a change", "rounds=4"]),
        (["run", "small.yaml", "rounds", "4"], ["'rounds'", "'4'"]),
        (["run", "small.yaml", "quickstart"], ["second file", "fedmem run takes one"]),
        (["compare", "small.yaml", "small.yaml"], ["second file", "fedmem compare takes one"]),
        (["compare", "small.yaml", "."], ["is a folder and no change", "fedmem.read"]),
        (["check", "rounds=4"], ["fedmem check quickstart rounds=4"]),
        (["check", "small.yaml", "round"], ["round", "no such file"]),
        (["run", "small.yaml", "rouds=4"], ["rouds=4", "did you mean 'rounds'?"]),
        (["sweep", "sweep.yaml", "rounds=4"], ["'rounds=4'", "under set or axes"]),
        (["check", "sweep.yaml", "rounds=4"], ["rounds=4", "under axes or set"]),
        (
            ["attack", "a.pt", "b.pt", "steps", *ATTACK],
            ["attack.steps=2000"],
        ),
    ],
)
def test_words_that_are_no_changes_teach(small: Path, words: list[str], messages: list[str]) -> None:
    Path("sweep.yaml").write_text(yaml.safe_dump({"base": "small.yaml", "axes": [{"path": "rounds", "values": [1]}]}))
    done = call(*words)
    assert done.exit_code == 2
    for message in messages:
        assert message in done.stderr
    assert not Path("runs").exists()


def test_notes_are_printed_before_a_run(small: Path) -> None:
    Path("small.yaml").write_text(SMALL + "observe: {every: 2}\n")
    for command in (["run", "small.yaml", "rounds=1"], ["compare", "small.yaml", "rounds=1", "--seeds", "2"]):
        done = call(*command)
        assert done.exit_code == 0, done.stderr
        assert "note: the run has 1 round instead of 2, so observe.every is 1 instead of 2" in " ".join(
            done.stderr.split()
        )
    assert "note" in call("check", "small.yaml", "rounds=1").stdout
    assert "note" not in call("run", "small.yaml", "rounds=1", "--quiet").stderr
