"""Does removing the most exposed examples expose those that stay, and those of other clients?

    python experiments/onion/run.py --jobs 2

Finished federations lie in `--out` and are not trained twice, so that the command goes on where it was interrupted. It
writes `results.csv`, `gates.csv` and `onion.png`; every interval in README.md is a row of one of the tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import fedmem
from experiments.onion.analysis import DRAWS, NATURAL, SELECTIONS, arm_of, gates, of_selection, table
from experiments.onion.figure import FIGURE
from fedmem.results.read import Run
from fedmem.studies.experiment import cell_results, command_line, write_results

HERE = Path(__file__).resolve().parent

SCORING = ("runs=32", "repeat=1")
"""Changes for the federation that gives the scores: more runs, another random inclusion, and other batches."""

MEASURED = ("estimators=[{kind: memorisation}]",)
"""Changes for all others. Attacks on some of the examples are made from what they store."""


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    arguments = command_line(str(__doc__), HERE, seeds=5).parse_args()
    cells = [(seed,) for seed in range(arguments.seeds)]
    values = pd.concat(cell_results(one, cells, arguments), ignore_index=True)
    tested = gates(values)
    write_results(arguments.results, {"results": table(values), "gates": tested}, [FIGURE], digits=4)
    print(tested.to_string(index=False))


def one(seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The values of all selections in one seed."""

    def train(*changes: str) -> Run:
        scenario = fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *changes, *settings])
        run = fedmem.read(fedmem.run(scenario, out=out))
        print(f"seed {seed}: {(run.scenario.get('removed') or {}).get('reason', 'nothing is removed')}", flush=True)
        return run

    scores, whole = train(*SCORING), train(*MEASURED)
    check_same_examples(scores.audit, whole.audit)
    arms = {"scores": arm_of(scores), "whole": arm_of(whole)}
    frames = []
    for name, selection in SELECTIONS.items():
        removals = {"removed": selection}
        removals |= {f"matched_{draw}": {**selection, "sample": "matched", "draw": draw} for draw in range(DRAWS[name])}
        layers = {
            key: arm_of(train(*MEASURED, removed_field(scores.path, removal))) for key, removal in removals.items()
        }
        frames.append(of_selection(name, whole.audit.kind.tolist(), whole.audit.owner.to_numpy(), {**arms, **layers}))
    return pd.concat(frames, ignore_index=True).assign(seed=seed)


def check_same_examples(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """Stop unless the examples of two runs are the same ones, with the same owners, by number."""
    columns = ["subject", "kind", "owner", "target"]
    assert all(np.array_equal(first[column], second[column]) for column in columns), "the runs hold other examples"


def removed_field(source: Path, removal: Mapping[str, object]) -> str:
    """The field `removed` of a scenario: the examples that a removal takes by the scores of a finished run."""
    derive = {"from": str(source), "remove": {"kinds": [NATURAL], **removal}}
    chosen = fedmem.load_scenario(HERE / "removal.yaml", [f"derive={json.dumps(derive)}"]).removed
    assert chosen is not None
    return f"removed={json.dumps(chosen.model_dump())}"


if __name__ == "__main__":
    main()
