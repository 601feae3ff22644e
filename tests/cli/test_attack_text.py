"""Tests of `fedmem/cli/attack_text.py`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.apps.attack import AttackResult
from fedmem.apps.attack_scores import Score
from fedmem.apps.match_control import Match
from fedmem.cli.attack_text import leaked_text, match_lines, score_lines
from fedmem.contracts.attack import Reconstruction
from tests.apps.attack_helpers import call, write_attack_files

QUICK = ("--set", "attack.steps=60")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_attack_files()
    near = np.eye(4, dtype=np.float32)[:2]
    np.savez("others.npz", np.concatenate([abs(near - step) for step in (0.02, 0.03)]))  # only exact ones are nearer
    return tmp_path


def test_values_that_nobody_gave_are_marked(folder: Path) -> None:
    said = call(*QUICK, "--controls", "0", "--out", "one")[1]
    assert "steps 1 (default, not given), batch size 2 (default, not given)" in said
    assert "the learning rate, the number of local steps, the number of examples" in said
    given = call(*QUICK, "--controls", "0", "--steps", "1", "--mode", "train", "--clients", "1", "--out", "two")[1]
    assert "steps 1, batch size 2 (default, not given), clients 1, mode train," in given


def test_epochs_are_steps_by_batch_size_and_rows(folder: Path) -> None:
    said = call(*QUICK, "--controls", "0", "--epochs", "3", "--batch-size", "1", "--out", "one")[1]
    assert "steps 6 (from 3 epochs), batch size 1" in said
    assert json.loads((folder / "one" / "attack.json").read_text())["known"]["steps"] == 6
    code, _, error = call("--epochs", "3", "--steps", "6", "--out", "two")
    assert code == 2
    assert "leave out --steps or --epochs" in error


def test_a_good_match_is_said_and_scored(folder: Path) -> None:
    said = call(*QUICK, "--truth", "truth.npz", "--gallery", "others.npz", "--out", "found")[1]
    assert "match: good; matching distance" in said
    assert "WARNING" not in said
    assert "identified 2 of 2" in said
    assert json.loads((folder / "found" / "attack.json").read_text())["match"]["verdict"] == "good"


def test_a_failed_match_is_no_evidence_of_safety(folder: Path) -> None:
    Path("before.pt").rename("other.pt")
    Path("after.pt").rename("before.pt")
    Path("other.pt").rename("after.pt")
    code, said, _ = call(*QUICK, "--truth", "truth.npz", "--gallery", "others.npz", "--out", "found")
    assert code == 0
    assert "WARNING: the update was not matched" in said
    assert "before and after are probably swapped" in said


def test_nothing_identified_without_a_match_is_undefined() -> None:
    zeros = np.zeros((2, 4), np.float32)
    score = Score(psnr=8.0, margin=-3.0, identified=0.0, place=0, prior=zeros[0])
    bad = Match(distance=0.3, as_stated=(1e-6, 1e-5), misstated=(0.2, 0.3), reverse=0.4)
    found = Reconstruction(inputs=zeros, labels=np.array([0, 1]), distance=0.3)
    done = AttackResult(found=found, knows="lr", clients=1, match=bad, scores=(score, score), gallery_size=9)
    (line,) = score_lines(done)
    assert line.startswith("identified: undefined")
    assert "0 of 2" not in line
    assert "identified 0 of 2 among 9 others" in score_lines(replace(done, match=replace(bad, distance=1e-6)))[0]
    some = replace(done, scores=(score, replace(score, identified=1.0)))
    assert "identified 1 of 2" in score_lines(some)[0]


def test_reasons_and_undecided_matches_are_in_words() -> None:
    bad = Match(distance=0.3, as_stated=(1e-6, 1e-5), misstated=(0.2, 0.3), reverse=0.4)
    text = "\n".join(match_lines(bad))
    for reason in ("Adam", "--steps", "--mode", "swapped", "clipping"):
        assert reason in text
    overlap = Match(distance=0.3, as_stated=(0.1, 0.3), misstated=(0.2, 0.3), reverse=0.4)
    assert "match: undecided" in match_lines(overlap)[0]


def test_an_attack_that_never_works_does_not_blame_the_client() -> None:
    bad = Match(distance=0.9, as_stated=(0.3, 0.4, 0.5), misstated=(0.2, 0.3), worked=(False,) * 3, reverse=0.95)
    *_, match, warning = match_lines(bad)
    assert "works on 0 of 3 of them" in match
    assert "this attack cannot work on updates of this kind" in warning
    assert "usual reasons" not in warning
    assert "Adam" not in warning
    other = match_lines(replace(bad, worked=(True, False, False)))[-1]
    assert "usual reasons" in other


def test_leaks_without_a_match_are_not_called_no_evidence() -> None:
    """The warning about the match and the count of identified inputs agree."""
    bad = Match(distance=0.3, as_stated=(1e-6, 1e-5), misstated=(0.2, 0.3), reverse=0.4)
    image = np.zeros(4, np.float32)
    score = Score(psnr=30.0, margin=9.0, identified=1.0, place=0, prior=image)
    found = Reconstruction(inputs=np.zeros((8, 4), np.float32), labels=np.zeros(8, int), distance=0.3)
    done = AttackResult(found=found, knows="lr", clients=1, match=bad, scores=(score,) * 8, gallery_size=999)
    assert leaked_text(done) == "8 of 8"
    warning = match_lines(bad, leaked=leaked_text(done))[-1]
    assert warning.startswith("WARNING: not matched, yet 8 of 8 true inputs leaked: not safe")
    assert "says nothing" not in warning
    by_chance = replace(done, scores=(score, *(replace(score, identified=0.0),) * 7), gallery_size=9)
    assert leaked_text(by_chance) == ""
    assert "says nothing about safety" in match_lines(bad, leaked=leaked_text(by_chance))[-1]


def test_several_steps_name_the_stronger_attack(folder: Path) -> None:
    said = call(*QUICK, "--controls", "0", "--steps", "4", "--batch-size", "1", "--out", "one")[1]
    assert "--attack unrolled --labels LABEL,LABEL,... --in-order" in said
    assert "stronger" not in call(*QUICK, "--controls", "0", "--out", "two")[1]
    unrolled = ("--attack", "unrolled", "--steps", "4", "--batch-size", "1", "--labels", "2,0", "--in-order")
    assert "stronger" not in call(*QUICK, "--controls", "0", *unrolled, "--out", "three")[1]


def test_changed_running_statistics_contradict_mode_eval(folder: Path) -> None:
    Path("normed.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))\n"
    )
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    torch.save(model.state_dict(), "before.pt")
    for training, expected in ((True, True), (False, False)):
        model.train(training)
        loss = nn.functional.cross_entropy(model(torch.eye(4)[:2]), torch.tensor([2, 0]))
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for value, gradient in zip(model.parameters(), gradients, strict=True):
                value.sub_(0.1 * gradient)
        torch.save(model.state_dict(), "after.pt")
        said = call("--model", "normed:Net", *QUICK, "--controls", "0", "--mode", "eval", "--out", str(training))[1]
        assert ("note: mode eval is granted, but 3 buffers differ" in said) == expected
        torch.save(model.state_dict(), "before.pt")
