"""Progress of one scenario, as lines of text."""

from __future__ import annotations

import io

import pytest

from fedmem.cli.progress import ManyRunsProgress, Progress
from fedmem.contracts.events import (
    Event,
    RoundFinished,
    ScenarioFinished,
    ScenariosStarted,
    ShardStarted,
    ShardStored,
    StageStarted,
    TrainingStarted,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def finished(round_number: int, rounds: int, accuracy: float | None = None, first: int = 0, last: int = 0) -> Event:
    return RoundFinished(round=round_number, rounds=rounds, first=first, last=last, accuracy=accuracy)


def test_progress_without_a_terminal_is_a_line_now_and_then() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(stream=stream, every_seconds=5, clock=clock) as progress:
        progress(TrainingStarted(rounds=10, runs=32))
        for round_number in range(1, 11):
            clock.now += 2
            progress(finished(round_number, 10, 0.5 + round_number / 100 if round_number > 1 else None, last=31))
        progress(StageStarted(text="writing"))
    assert stream.getvalue().splitlines() == [
        "round 3 of 10, 32 runs, global accuracy 0.530, about 14 s left",
        "round 6 of 10, 32 runs, global accuracy 0.560, about 8 s left",
        "round 9 of 10, 32 runs, global accuracy 0.590, about 2 s left",
        "round 10 of 10, 32 runs, global accuracy 0.600, about 0 s left",
        "writing",
    ]


def test_progress_over_shards_names_the_runs_of_a_round() -> None:
    """No round is ever above the rounds of the scenario."""
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream=stream, every_seconds=0, clock=clock)
    progress(TrainingStarted(rounds=2, runs=3, shards=2, stored=1, processes=2))
    for event in (
        finished(1, 2, first=1, last=2),
        finished(1, 2, 0.5, first=3, last=3),
        finished(2, 2, 0.6, first=1, last=2),
        ShardStored(first=1, last=2),
        finished(2, 2, 0.7, first=3, last=3),
    ):
        clock.now += 10
        progress(event)
    assert stream.getvalue().splitlines() == [
        "1 run stored already; training 3 runs in 2 shards, 2 at once",
        "0 of 2 shards stored, round 1 of 2 in runs 1 to 2, about 20 s left",
        "0 of 2 shards stored, round 1 of 2 in runs 1 to 2 and run 3, global accuracy 0.500, about 20 s left",
        "0 of 2 shards stored, round 1 to 2 of 2, slowest in run 3, global accuracy 0.600, about 6 s left",
        "1 of 2 shards stored, round 1 of 2 in run 3, about 8 s left",
        "1 of 2 shards stored, round 2 of 2 in run 3, global accuracy 0.700, about 0 s left",
    ]


def test_an_accuracy_of_an_earlier_round_names_it() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream=stream, every_seconds=0, clock=clock)
    progress(TrainingStarted(rounds=3, runs=1))
    for round_number, accuracy in ((1, 0.5), (2, None), (3, 0.75)):
        progress(finished(round_number, 3, accuracy))
    assert [line.split(", ")[2] for line in stream.getvalue().splitlines()] == [
        "global accuracy 0.500", "global accuracy 0.500 after round 1", "global accuracy 0.750"
    ]  # fmt: skip


def test_models_without_an_accuracy_show_their_loss() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream=stream, every_seconds=0, clock=clock)
    progress(TrainingStarted(rounds=2, runs=1))
    for round_number, loss in ((1, 22.686), (2, None)):
        progress(RoundFinished(round=round_number, rounds=2, first=0, last=0, loss=loss))
    assert [line.split(", ")[2] for line in stream.getvalue().splitlines()] == [
        "global loss 22.69 nats", "global loss 22.69 nats after round 1"
    ]  # fmt: skip


def test_progress_can_be_silent() -> None:
    stream = io.StringIO()
    with Progress(quiet=True, stream=stream) as progress:
        progress(TrainingStarted(rounds=1, runs=1))
        progress(finished(1, 1, 0.5))
        progress(StageStarted(text="writing"))
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("per_round", "left"), [(1, "99 s"), (60, "99 min"), (3600, "99.0 h")])
def test_time_left_has_a_fitting_unit(per_round: int, left: str) -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream=stream, every_seconds=0, clock=clock)
    progress(TrainingStarted(rounds=100, runs=1))
    clock.now += per_round
    progress(finished(1, 100))
    assert stream.getvalue() == f"round 1 of 100, 1 run, about {left} left\n"


def test_progress_on_a_terminal_is_a_bar_and_leaves_it_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()

    def fail() -> None:
        with Progress(stream=stream) as progress:
            progress(TrainingStarted(rounds=4, runs=8))
            progress(finished(2, 4, 0.75, last=7))
            progress(StageStarted(text="estimating"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    said = stream.getvalue()
    for text in ("round 2 of 4, 8 runs", "global accuracy 0.750", "estimating"):
        assert text in said
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert said.count(hide) == said.count(show)


def test_progress_of_a_pilot_says_so() -> None:
    progress = Progress(quiet=True)
    progress(TrainingStarted(what="pilot", rounds=4, runs=1))
    progress(finished(3, 4))
    assert progress.text() == "pilot, round 3 of 4"
    progress(TrainingStarted(rounds=4, runs=8))
    assert progress.text() == "round 0 of 4, 8 runs"


def test_progress_of_many_names_the_rounds_under_way() -> None:
    many = ManyRunsProgress(quiet=True, clock=Clock())
    many(ScenariosStarted(total=3, finished=0))
    for place in (0, 1):
        many(TrainingStarted(place=place, rounds=20, runs=1))
    assert many.text() == "0 of 3 done, 2 running, 0 failed"
    for place, round_number in ((0, 3), (1, 7)):
        many(RoundFinished(place=place, round=round_number, rounds=20, first=0, last=0))
    assert many.text().startswith("0 of 3 done, 2 running (round 3 to 7 of 20), 0 failed")
    many(ScenarioFinished(place=0, folder="runs/a"))
    assert many.text().startswith("1 of 3 done, 1 running (round 7 of 20), 0 failed")


def test_nothing_left_to_run_is_said() -> None:
    stream = io.StringIO()
    ManyRunsProgress(stream=stream)(ScenariosStarted(total=3, finished=3))
    assert stream.getvalue() == "all 3 scenarios were finished before; nothing is run\n"


def test_what_was_stored_counts_from_the_start() -> None:
    """The bar of a command that goes on starts there, and the time left is that of what is trained now."""
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream=stream, every_seconds=0, clock=clock)
    progress(TrainingStarted(rounds=2, runs=2, shards=1, stored=6))
    assert progress._share.done == progress._share.at_start == 0.75
    clock.now += 10
    progress(finished(1, 2, first=6, last=7))
    assert progress._share.done == 0.875
    assert stream.getvalue().splitlines()[-1].endswith("about 10 s left")


def test_a_shard_that_is_trained_again_is_counted_once() -> None:
    progress = Progress(quiet=True)
    progress(TrainingStarted(rounds=4, runs=4, shards=2))
    shares = []
    for event in (
        ShardStarted(first=0, last=1),
        finished(4, 4, first=0, last=1),
        ShardStarted(first=0, last=1),  # its worker was lost before it could send the shard
        finished(2, 4, first=0, last=1),
        finished(4, 4, first=0, last=1),
        ShardStored(first=0, last=1),
        ShardStarted(first=2, last=3),
        finished(4, 4, first=2, last=3),
    ):
        progress(event)
        shares.append(progress._share.done)
    assert shares == [0.0, 0.5, 0.0, 0.25, 0.5, 0.5, 0.5, 1.0]


def test_a_terminal_that_is_gone_ends_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")

    class Gone(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

        def flush(self) -> None:
            raise OSError(5, "Input/output error")

    with Progress(stream=Gone()) as progress:
        progress(TrainingStarted(what="pilot", rounds=1, runs=1))
        progress(TrainingStarted(rounds=1, runs=1))
        progress(finished(1, 1))
    tally = ManyRunsProgress(stream=Gone())
    tally(ScenariosStarted(total=1, finished=0))
    tally(ScenarioFinished(folder="runs/tiny/0123"))
