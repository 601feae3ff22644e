"""Work in other processes comes back whole, or as the error that it ended with; no process is left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmem.errors import ComponentError, Problem, RunError, ScenarioError
from fedmem.processes import ForkPool, InProcessPool, Report, WorkerPool, can_fork

pytestmark = pytest.mark.skipif(not can_fork(), reason="forks are for Linux")


def nothing(name: str, told: Any) -> None:
    pass


def run(
    kind: Callable[..., WorkerPool[Any, Any]], hear: Callable[[str, Any], None], *works: Callable[[Report[int]], Any]
) -> Any:
    """What the first of them returns that is done; they are called `work 0`, `work 1` and so on."""
    with kind(lambda number, tell: works[number](tell), hear) as crew:
        for number in range(len(works)):
            crew.start(f"work {number}", number)
        return crew.wait_for_one()[1]


def failing(error: BaseException) -> Callable[[Report[int]], None]:
    def work(tell: Report[int]) -> None:
        raise error

    return work


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{process}/status").read_text()


def gone(process: int, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while alive(process) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(process)


@pytest.mark.parametrize("kind", [InProcessPool, ForkPool])
def test_reports_and_results_arrive_under_their_names(kind: Callable[..., WorkerPool[Any, Any]]) -> None:
    heard: dict[str, list[int]] = {}

    def work(number: int, tell: Report[int]) -> int:
        for i in range(3):
            tell(10 * number + i)
        return number

    with kind(work, lambda name, told: heard.setdefault(name, []).append(told)) as crew:
        for number in range(3):
            crew.start(f"work {number}", number)
        found = dict(crew.wait_for_one() for _ in range(3))
    assert found == {"work 0": 0, "work 1": 1, "work 2": 2}
    assert heard == {f"work {i}": [10 * i, 10 * i + 1, 10 * i + 2] for i in range(3)}
    assert not multiprocessing.active_children()


def test_forks_are_other_processes_and_work_at_the_same_time() -> None:
    def meet(job: None, tell: Report[int]) -> int:
        tell(os.getpid())
        os.read(wait, 1)
        return os.getpid()

    wait, go = os.pipe()
    heard: list[int] = []

    def hear(name: str, told: int) -> None:
        heard.append(told)
        if len(heard) == 2:  # both are at work before either may go on
            os.write(go, b"xx")

    with ForkPool(meet, hear) as crew:
        crew.start("one", None)
        crew.start("other", None)
        found = {crew.wait_for_one()[1] for _ in range(2)}
    assert found == set(heard)
    assert len(found | {os.getpid()}) == 3


@pytest.mark.parametrize("kind", [InProcessPool, ForkPool])
def test_worker_keeps_its_state_from_job_to_job(kind: Callable[..., WorkerPool[Any, Any]]) -> None:
    built: list[int] = []

    def work(job: int, tell: Report[int]) -> tuple[int, int]:
        built.append(job)
        return os.getpid(), len(built)

    found = []
    with kind(work, nothing) as crew:
        for job in range(3):
            crew.start("work", job)
            found.append(crew.wait_for_one()[1])
    assert [count for _, count in found] == [1, 2, 3]
    assert len({process for process, _ in found}) == 1
    assert len(built) == (3 if kind is InProcessPool else 0)


def test_idle_worker_that_died_is_noticed_with_its_next_job() -> None:
    def work(job: int, tell: Report[int]) -> int:
        return os.getpid()

    with ForkPool(work, nothing) as crew:
        crew.start("work 0", 0)
        process = crew.wait_for_one()[1]
        os.kill(process, signal.SIGKILL)
        assert gone(process)
        crew.start("work 1", 1)
        with pytest.raises(RunError, match="trained work 1 was ended by signal 9"):
            crew.wait_for_one()


class Stubborn(Exception):
    """Cannot be made again from its text."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} of {other}")


@pytest.mark.parametrize("kind", [InProcessPool, ForkPool])
@pytest.mark.parametrize(
    "error",
    [
        RunError("round 3, client 2: out of battery"),
        ComponentError("client.lr", "too much"),
        ScenarioError([Problem(path="a.b", message="wrong", line=3, source="x.yaml"), Problem(path="", message="so")]),
        MemoryError("Unable to allocate 4 TiB"),
        PermissionError(13, "Permission denied", "/somewhere"),
        KeyError("ours"),
    ],
)
def test_error_keeps_its_class_and_message_between_processes(
    kind: Callable[..., WorkerPool[Any, Any]], error: Exception
) -> None:
    with pytest.raises(type(error)) as caught:
        run(kind, nothing, failing(error))
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    for name in ("problems", "path", "message", "filename", "errno"):
        assert getattr(caught.value, name, None) == getattr(error, name, None)
    if kind is ForkPool:
        assert "in work" in "".join(caught.value.__notes__), "where it happened"


def test_error_that_cannot_be_pickled_becomes_a_run_error() -> None:
    with pytest.raises(RunError) as caught:
        run(ForkPool, nothing, failing(Stubborn(3, 4)))
    assert str(caught.value) == "Stubborn: 3 of 4"


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (lambda: os._exit(3), r"ended with status 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"was ended by signal 9 \(Killed\)"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), r"was ended by signal 15 \(Terminated\)"),
    ],
)
def test_dying_process_is_named_with_its_status_and_ends_others(end: Callable[[], None], how: str) -> None:
    heard: list[int] = []

    def sleeping(tell: Report[int]) -> None:
        tell(os.getpid())
        time.sleep(600)

    def dying(tell: Report[int]) -> None:
        tell(os.getpid())
        end()
        time.sleep(600)

    with pytest.raises(RunError, match=f"the process that trained work 1 {how} before it was done.*speed.workers=1"):
        run(ForkPool, lambda name, told: heard.append(told), sleeping, dying)
    assert not multiprocessing.active_children()
    assert all(map(gone, heard))


def test_an_error_here_ends_the_forks() -> None:
    heard: list[int] = []

    def sleeping(tell: Report[int]) -> None:
        tell(os.getpid())
        time.sleep(600)

    def hear(name: str, told: int) -> None:
        heard.append(told)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(ForkPool, hear, sleeping)
    assert gone(*heard)


def test_first_action_runs_once_in_each_fork() -> None:
    done: list[int] = []

    def work(job: None, tell: Report[int]) -> bool:
        return done == [os.getpid()]

    with ForkPool(work, nothing, lambda: done.append(os.getpid())) as crew:
        for _ in range(2):  # once for each process, not for each job
            crew.start("work", None)
            assert crew.wait_for_one() == ("work", True)
    assert not done


def script(body: str, *words: str, **how: Any) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[1]
    code = f"import os, signal, time\nfrom fedmem.processes import ForkPool\n{body}"
    env = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, env=env, **how)


def test_a_fork_does_not_outlive_a_parent_that_is_killed() -> None:
    body = """
def work(job, tell):
    tell(os.getpid())
    time.sleep(600)
with ForkPool(work, lambda name, told: print(told, flush=True)) as crew:
    crew.start("one", 1)
    crew.start("other", 2)
    crew.wait_for_one()
"""
    with script(body) as parent:
        assert parent.stdout is not None
        forks = [int(parent.stdout.readline()) for _ in range(2)]
        assert all(map(alive, forks))
        parent.kill()
    assert all(map(gone, forks))


def test_threads_of_torch_in_the_parent_do_not_stop_a_fork() -> None:
    """OpenMP waits for ever for threads that a fork does not have; a new thread has none to wait for."""
    body = """
import torch
def work(job, tell):
    torch.set_num_threads(2)
    values = torch.ones(2000, 2000, requires_grad=True)
    (values @ values).exp().mean().backward()
    return torch.get_num_threads()
torch.set_num_threads(2)
work(0, print)
with ForkPool(work, print) as crew:
    crew.start("work", 0)
    print(crew.wait_for_one()[1])
"""
    with script(body) as parent:
        try:
            said, _ = parent.communicate(timeout=120)
        finally:
            parent.kill()
    assert said == "2\n"


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_daemon_process_cannot_fork() -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=lambda: there.send(can_fork()), daemon=True)
    process.start()
    assert here.recv() is False
    process.join()
