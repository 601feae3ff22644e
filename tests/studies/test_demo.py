"""Tests of `fedmem/studies/demo.py`: each control fails where what it checks is broken."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from fedmem.scenario.loading import load_scenario
from fedmem.shipped.files import folder
from fedmem.studies import demo
from fedmem.studies.demo import THRESHOLD, Control, Effect, run_controls
from tests.cli.main_helpers import call

STRONG = Effect(level="local", value=0.8, low=0.7, high=0.9, p=0.0002, auc=0.99)
NONE = Effect(level="global", value=0.01, low=-0.1, high=0.1, p=0.4, auc=0.5)


@pytest.mark.parametrize(
    ("effects", "planted", "null"),
    [
        ((STRONG, STRONG), True, False),
        ((STRONG, NONE), False, False),
        ((NONE, NONE), False, True),
        ((STRONG, replace(STRONG, value=-0.8)), False, False),
        ((NONE, replace(NONE, p=THRESHOLD)), False, False),
        ((NONE, replace(NONE, p=THRESHOLD * 1.01)), False, True),
        ((STRONG, replace(STRONG, p=math.nan)), False, False),
        ((NONE, replace(NONE, p=math.nan)), False, False),
        ((NONE, replace(NONE, value=math.nan)), False, False),
    ],
)
def test_controls_pass_on_the_stated_decision(effects: tuple[Effect, ...], planted: bool, null: bool) -> None:
    assert Control(is_planted=True, effects=effects).has_passed is planted
    assert Control(is_planted=False, effects=effects).has_passed is null


def test_smallest_p_of_the_scenario_is_below_the_threshold() -> None:
    """Otherwise the positive control could never pass; the two tests of a control share 1 in 1,000."""
    scenario = load_scenario("demo")
    assert 2 / (scenario.bootstrap + 1) < THRESHOLD
    assert len(Control(is_planted=False, effects=(STRONG, NONE)).effects) * THRESHOLD == pytest.approx(0.001)


def test_text_has_no_negative_zero() -> None:
    assert "memorisation 0.00 [−0.10, 0.00]" in replace(NONE, value=-0.001, low=-0.1, high=-0.0).text


@pytest.mark.slow
def test_demo_finds_planted_canaries_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("demo")
    assert done.exit_code == 0, done.output
    assert "positive control  passed" in done.stdout
    assert "negative control  passed" in done.stdout
    assert "at most 1 in 1,000" in done.stdout
    assert len(done.stdout.splitlines()) <= 16
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_owners_do_not_participate_in_the_null_window(tmp_path: Path) -> None:
    """What makes the federation a null one: round 6 is the only one with canaries, and has none of their clients."""
    import fedmem

    scenario = load_scenario("demo", demo.NULL)
    run = fedmem.read(fedmem.run(scenario, out=tmp_path))
    owners = set(run.audit.owner)
    trained = run.participation[run.participation["round"] >= 6]
    assert len(owners) == 5
    assert not owners & set(trained.client)
    assert owners <= set(run.participation.client)


def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Ship another demo."""
    text = (folder() / "demo.yaml").read_text()
    assert text.count(old) == 1
    (tmp_path / "demo.yaml").write_text(text.replace(old, new))
    monkeypatch.setattr("fedmem.shipped.files.folder", lambda: tmp_path)


@pytest.mark.slow
def test_training_that_does_nothing_fails_the_positive_control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(tmp_path, monkeypatch, "lr: 0.3", "lr: 1.0e-12")
    done = call("demo")
    assert done.exit_code == 1
    assert "positive control  FAILED" in done.stdout
    assert "negative control  passed" in done.stdout
    assert "the positive control failed: canaries that were trained on are not found" in " ".join(done.stderr.split())
    assert "Both controls passed" not in done.stdout


@pytest.mark.slow
def test_canaries_that_are_trained_on_fail_the_negative_control(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "NULL", ())
    done = call("demo")
    assert done.exit_code == 1
    assert "positive control  passed" in done.stdout
    assert "negative control  FAILED" in done.stdout
    assert "the negative control failed: an effect is reported for canaries" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_window_that_is_ignored_fails_the_negative_control(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if training forgot that canaries have a first round."""
    from fedmem.injections.random_pattern import RandomPattern

    place = RandomPattern._place
    monkeypatch.setattr(RandomPattern, "_place", lambda *given, **named: replace(place(*given, **named), start=None))
    planted, null = run_controls()
    assert planted.has_passed
    assert not null.has_passed
