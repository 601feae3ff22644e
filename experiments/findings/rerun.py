"""Run the studies behind all findings again with other seeds, in pieces, and say which verdicts change.

    python -m experiments.findings.rerun --jobs 2 --hours 1

The same command continues where it ended. Seeds begin at 100, so that no page has them. Tables go to `build/findings`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.findings.__main__ import main as write_findings
from fedmem.studies.study import StudyOptions, run_study, write_study
from fedmem.studies.study_folder import find_study

ROOT = Path(__file__).resolve().parents[2]
FIRST_SEED = 200
"""No study has chosen anything on this seed or those after it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A study of the rerun: how many seeds, and which cells."""

    study: str
    seeds: int = 5
    only: tuple[str, ...] = ()


PARTS = (
    Part(study="adversarial"),
    Part(study="overfitting"),
    Part(study="generative"),
    Part(study="attributes"),
    Part(study="value"),
    Part(study="forgetting"),
    Part(study="where"),
    Part(study="shadow_federations"),
    Part(study="random_labels"),
    Part(study="long_tail"),
    Part(study="influence"),
    Part(study="proxies"),
    Part(study="vulnerability"),
    Part(study="unlearning"),
    Part(study="privacy_frontier", seeds=3),
    Part(study="dishonest_server"),
    Part(study="aggregation_and_sampling/matched"),
    Part(study="matched_utility", only=("digits", "fashion_mnist")),
)
"""The short ones first."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then compare; 0 where the time ended first or no verdict changed its sign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="cells that are trained at a time")
    parser.add_argument("--hours", type=float, default=1.0, help="no cell begins later than this")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "findings", help="where tables and runs go")
    options = parser.parse_args(arguments)
    end = time.monotonic() + 3600 * options.hours
    for part in PARTS:
        if not run_part(part, options.out, options.jobs, (end - time.monotonic()) / 3600):
            print(f"{part.study} is not finished; the same command continues")
            return 0
    return write_findings(["--tables", str(options.out), "--results", str(options.out)])


def run_part(part: Part, out: Path, jobs: int, hours: float) -> bool:
    """Run one study unless its tables are there; whether they are there now."""
    folder = out / part.study.split("/")[0]
    done = folder / f"{part.study.replace('/', '-')}.done"
    if done.exists():
        return True
    study, _ = find_study(str(ROOT / "experiments" / part.study))
    seeds = range(FIRST_SEED, FIRST_SEED + part.seeds)
    runs = out / "runs"
    tables = run_study(study, StudyOptions(seeds=seeds, only=part.only, out=runs, jobs=jobs, hours=hours), print)
    if tables is None:
        return False
    write_study(study, folder, tables)
    done.touch()
    return True


if __name__ == "__main__":
    raise SystemExit(main())
