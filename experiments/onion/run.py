"""Does removing the most exposed examples expose those that stay, and those of other clients?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import fedmem
from experiments.onion.analysis import DRAWS, NATURAL, SELECTIONS, arm_of, gates, of_selection, table
from experiments.onion.figure import FIGURE
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent

SCORING = ("runs=32", "repeat=1")
"""Changes for the federation that gives the scores: more runs, another random inclusion, and other batches."""

MEASURED = ("estimators=[{kind: memorisation}]",)
"""Changes for all others. Attacks on some of the examples are made from what they store."""


def scenarios(seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The federation that gives the scores, and the one with all examples."""
    return [scenario_of(seed, changes, settings) for changes in (SCORING, MEASURED)]


def scenario_of(seed: int, changes: Sequence[str], settings: Sequence[str]) -> Scenario:
    """A federation of one seed with these changes."""
    return fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *changes, *settings])


def cell(seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The values of all selections in one seed."""
    scores, whole = (fedmem.read(fedmem.run(scenario, out=out)) for scenario in scenarios(seed, settings))
    check_same_examples(scores.audit, whole.audit)
    arms = {"scores": arm_of(scores), "whole": arm_of(whole)}
    frames = []
    for name, selection in SELECTIONS.items():
        removals = {"removed": selection}
        removals |= {f"matched_{draw}": {**selection, "sample": "matched", "draw": draw} for draw in range(DRAWS[name])}
        layers = {}
        for key, removal in removals.items():
            scenario = scenario_of(seed, [*MEASURED, removed_field(scores.path, removal)], settings)
            layers[key] = arm_of(fedmem.read(fedmem.run(scenario, out=out)))
        frames.append(of_selection(name, whole.audit.kind.tolist(), whole.audit.owner.to_numpy(), {**arms, **layers}))
    return pd.concat(frames, ignore_index=True).assign(seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and the claims about them."""
    values = pd.concat(results, ignore_index=True)
    return {"results": table(values), "gates": gates(values)}


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


STUDY = Study(
    question=str(__doc__),
    seeds=range(5),
    cells=lambda seeds: [(seed,) for seed in seeds],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
    unpriced=f"{len(SELECTIONS) + sum(DRAWS.values())} federations of each seed without some examples, which follow "
    "from the scores. Each is as large as the one with all examples",
)
