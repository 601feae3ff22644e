"""Scenarios and jobs with which backends are tested."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmem.errors import RunError
from fedmem.processes import Do, InProcessPool, Report
from fedmem.scenario.scenario import Scenario
from tests.tiny import tiny

TABLES = ("audit.parquet", "evidence.parquet", "measurements.parquet", "participation.parquet", "references.parquet")


def small(**changes: Any) -> Scenario:
    """Eight runs of two processor seconds at most."""
    return tiny(**{"runs": 8, "rounds": 3, "estimators": [{"kind": "memorisation"}], **changes})


def tables(folder: Path) -> dict[str, bytes]:
    """The tables of a run: all that it has measured."""
    return {name: (folder / name).read_bytes() for name in TABLES}


@dataclass(frozen=True)
class Doubling:
    """The setup of a worker that doubles numbers, fails at 13, and dies at numbers whose file is not there yet."""

    folder: str

    def __call__(self) -> Do[int, str, int]:
        """Counts the setups in the folder."""
        (Path(self.folder) / f"setup-{os.getpid()}").touch()
        return self.double

    def double(self, job: int, report: Report[str]) -> int:
        """Twice the number."""
        report(f"begun {job}")
        died = Path(self.folder) / f"died-{job}"
        if job == 13:
            raise RunError("13 is not doubled")
        if job >= 100 and not died.exists():
            if job < 1000:
                died.touch()
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * job


class Here:
    """A backend whose workers are this process; they get what is sent, pickled as for another one."""

    name = "here"

    def __init__(self, card: str | None = None) -> None:
        self._card = card
        self.asked = 0
        """How often the card was asked for."""

    def joined_name(self) -> str:
        return self.name

    def connect(self) -> Any:
        return nullcontext()

    def num_workers(self, threads: int, *, gpu: bool) -> int:
        return 3

    def card(self) -> str | None:
        self.asked += 1
        return self._card

    def pool(self, setup: Any, receive: Any, *, workers: int, threads: int, gpu: bool) -> Any:
        do = pickle.loads(pickle.dumps(setup))()
        return InProcessPool(lambda job, report: pickle.loads(pickle.dumps(do(job, report))), receive)


def collecting() -> tuple[list[tuple[str, Any]], Callable[[str, Any], None]]:
    """What was reported, and the function that is told."""
    seen: list[tuple[str, Any]] = []
    return seen, lambda name, what: seen.append((name, what))
