"""Runs contenders in turn, each in a process of its own, so that all of them meet the same neighbours."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contender import Trained, read
from benchmarks.environments import PEERS, Unavailable

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A name, a module to run and its arguments; `peer` names its environment, and what is `essential` may not fail."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    peer: str | None = None
    essential: bool = True
    wants_plan: bool = True


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one process said, and the seconds that it took from its start to its end."""

    trained: Trained
    whole: float


Samples = dict[str, list[Measured]]


def hold(
    contenders: Sequence[Contender], folder: Path, repetitions: int, say: Callable[[str], None] = print
) -> tuple[Samples, list[str]]:
    """Every contender once, then all once more in the opposite order, and so on; and what was skipped, with its reason.

    A contender that fails is left out from then on, unless it is essential: then the whole contest fails.
    """
    samples: Samples = {contender.name: [] for contender in contenders}
    skipped: list[str] = []
    left = list(contenders)
    for repetition in range(repetitions):
        for contender in list(left) if repetition % 2 == 0 else list(reversed(left)):
            try:
                samples[contender.name].append(run(contender, folder))
            except Unavailable as error:
                if contender.essential:
                    raise SystemExit(f"{contender.name}: {error}") from error
                skipped.append(f"{contender.name}: {error}")
                say(f"  skipped {skipped[-1]}")
                left.remove(contender)
                del samples[contender.name]
        say(f"  repetition {repetition + 1} of {repetitions} done")
    return samples, skipped


def run(contender: Contender, folder: Path) -> Measured:
    """One process. Errors: `Unavailable` with the last line of what it said."""
    python = sys.executable if contender.peer is None else PEERS[contender.peer].python()
    out = folder / "out.npz"
    out.unlink(missing_ok=True)
    plan = ["--plan", str(folder / "plan.npz")] if contender.wants_plan else []
    command = [python, "-m", contender.module, *contender.arguments, *plan, "--out", str(out)]
    # threads are a setting of each contender; nobody is to take more by default
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True)
    whole = time.perf_counter() - started
    if done.returncode or not out.is_file():
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise Unavailable(lines[-1][:200] if lines else f"ended with code {done.returncode}")
    return Measured(trained=read(out), whole=whole)
