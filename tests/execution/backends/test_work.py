"""Tests of `fedmem/execution/backends/_work.py`."""

from __future__ import annotations

from pathlib import Path

from fedmem.errors import RunError
from fedmem.execution.backends._work import LAST, Worker
from fedmem.processes import Do, Report
from tests.execution.backends.backend_helpers import Doubling


def test_reports_come_first_and_one_message_last(tmp_path: Path) -> None:
    worker = Worker(Doubling(str(tmp_path)))
    assert list(worker.work(4)) == [("report", "begun 4"), ("done", 8)]
    report, (kind, error) = worker.work(13)
    assert report == ("report", "begun 13")
    assert kind == "failed"
    assert isinstance(error, RunError)
    assert kind in LAST
    assert len(list(tmp_path.iterdir())) == 1, "it is set up once"


def test_a_setup_that_fails_is_tried_again_with_the_next_job() -> None:
    tries: list[int] = []

    def setup() -> Do[int, str, int]:
        tries.append(1)
        if len(tries) == 1:
            raise RunError("no data here")
        return lambda job, report: job

    worker = Worker(setup)
    ((kind, error),) = worker.work(1)
    assert (kind, str(error)) == ("failed", "no data here")
    assert list(worker.work(1)) == [("done", 1)]


def test_closing_lets_go_of_what_was_set_up() -> None:
    made: list[int] = []

    def setup() -> Do[int, str, int]:
        made.append(1)
        return do

    def do(job: int, report: Report[str]) -> int:
        return job

    worker = Worker(setup)
    list(worker.work(1))
    worker.close()
    list(worker.work(1))
    assert len(made) == 2
