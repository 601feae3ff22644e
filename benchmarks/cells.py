"""Comparing settings over seeds: all of them in one command, or one `fedmem run` after the other.

`python -m benchmarks.cells together|apart --seeds 5 --out FILE`; what is timed is everything that a user waits for but
the start of the command itself.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.contender import Trained, write

SCENARIO = Path(__file__).parent.parent / "scenarios" / "quickstart.yaml"
SETTINGS = (
    "fedavg",
    "fedmedian",
    "fedprox",
    "fedadam",
    "fedavgm",
    "trimmed_mean",
    "krum",
    "{kind: fedavg, weighting: uniform}",
)
RUNS = 16


def main() -> None:
    """Write the seconds that it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=("together", "apart"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--settings", type=int, default=len(SETTINGS))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    strategies = [kind if kind.startswith("{") else f"{{kind: {kind}}}" for kind in SETTINGS[: given.settings]]
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        if given.way == "together":
            vary = f"strategy={','.join(strategies)}"
            _fedmem("compare", "--vary", vary, "--seeds", f"0:{given.seeds}", "--set", f"runs={RUNS}", "--out", out)
        else:
            for strategy in strategies:
                for seed in range(given.seeds):
                    changes = (f"strategy={strategy}", f"seed={seed}", f"runs={RUNS}")
                    _fedmem("run", *(word for change in changes for word in ("--set", change)), "--out", out)
        seconds = time.perf_counter() - started
    write(given.out, Trained(params={}, value=seconds))


def _fedmem(command: str, *arguments: str) -> None:
    """A command in a process of its own, as a user gives it."""
    code = "from fedmem.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, command, str(SCENARIO), *arguments, "--quiet"], check=False)
    if done.returncode:
        raise SystemExit(f"fedmem {command} ended with code {done.returncode}")


if __name__ == "__main__":
    main()
