"""Exposure rises with repetition, and counterfactual memorisation falls: one figure of both.

    python experiments/repetition/run.py --jobs 2

Finished federations lie in `--out` and are not trained twice, so that the command goes on where it was interrupted. It
writes `results.csv`, `slopes.csv` and `repetition.png`; every number in README.md is a row of one of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from analysis import SECRETS, of_run, slopes, table
from figure import draw

import fedmem
from fedmem.estimation.saturation import zone_of
from fedmem.estimators.exposure import null_mean
from fedmem.results.read import read_bank

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--jobs", type=int, default=1, help="how many federations at a time")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where federations go")
    parser.add_argument("--results", type=Path, default=HERE, help="where tables and figure go")
    parser.add_argument("--set", action="append", default=[], help="path=value in every scenario, for smaller trials")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    # Processes that start afresh: torch does not survive being forked.
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(partial(one, out=given.out, settings=given.set), range(given.seeds)))
    frames, counts = zip(*found, strict=True)
    values = pd.concat(frames, ignore_index=True)
    (count,) = set(counts)
    shown, tested = table(values), slopes(values)
    given.results.mkdir(parents=True, exist_ok=True)
    shown.to_csv(given.results / "results.csv", index=False, float_format="%.4g")
    tested.to_csv(given.results / "slopes.csv", index=False, float_format="%.4g")
    (given.results / "repetition.png").write_bytes(draw(shown, null_mean(count), zone_of("exposure", [count]).top))
    print(tested.to_string(index=False))


def one(seed: int, out: Path, settings: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """The final values of one federation, and among how many others each secret is ranked."""
    scenario = fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *settings])
    folder = fedmem.run(scenario, out=out)
    (count,) = {part.count for part in read_bank(folder).references if part.family in SECRETS}
    print(f"seed {seed}: done", flush=True)
    return of_run(fedmem.read(folder)).assign(seed=seed), count


if __name__ == "__main__":
    main()
