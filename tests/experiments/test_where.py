"""Where memories are: claims on made values, and the committed tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.where import analysis, run

FOLDER = Path(analysis.__file__).parent


def made(last: float = 0.05) -> pd.DataFrame:
    """Each block takes 0.2 and brings 0.2 back, the last one takes `last`; ordinary rows lose nothing."""
    rng, rows = np.random.default_rng(0), []

    def add(what: str, kind: str, level: str, block: int | None, value: float, arm: str, seed: int) -> None:
        cell = {"arm": arm, "seed": seed, "what": what, "kind": kind, "level": level, "void": 0}
        rows.append({**cell, "block": block, "value": value + rng.normal(0, 0.005)})

    for seed in range(5):
        for arm, blocks in analysis.ARMS.items():
            for kind in (*analysis.MEMORISED[arm], "typical"):
                add("memorisation", kind, "local", None, 0.8, arm, seed)
                for block in range(blocks + 1):
                    share = 0.9 if block == 0 else last if block == blocks else 0.2
                    size = 0.0 if kind == "typical" else 1.0
                    add("taken", kind, "local", block, share, arm, seed)
                    add("fall", kind, "local", block, size * share, arm, seed)
                    add("returned", kind, "global", block, 0.2 if block else 1.0, arm, seed)
                if arm == "images":
                    add("overlap_gain", kind, "local", None, 0.1, arm, seed)
    return pd.DataFrame(rows).astype({"block": "Int64"})


def test_all_claims_hold_where_they_are_true() -> None:
    assert set(analysis.gates(made()).verdict) == {"holds"}


def test_a_last_block_that_takes_most_contradicts() -> None:
    found = analysis.gates(made(last=0.7))
    last = found.claim.str.startswith("the last block")
    half = found.claim.str.startswith("no single block takes half")
    assert set(found.verdict[last | half]) == {"contradicted"}
    assert set(found.verdict[~(last | half)]) == {"holds"}


def test_a_void_block_leaves_its_claims_undefined() -> None:
    values = made()
    broken = (values.what == "taken") & (values.kind == "secret") & (values.block == 2) & (values.seed == 3)
    values.loc[broken, ["value", "void"]] = np.nan, 1
    found = analysis.gates(values)
    about = found.claim.str.contains("takes") & found.claim.str.contains("of secrets")
    assert set(found.verdict[about]) == {"undefined"}
    table = analysis.table(values)
    row = table[(table.what == "taken") & (table.kind == "secret") & (table.block == 2)].iloc[0]
    assert (row.void, np.isnan(row["mean"])) == (1, True)


def test_early_minus_late_is_of_what_is_brought_back() -> None:
    values = made()
    early = (values.what == "returned") & (values.arm == "images") & values.block.isin([1, 2])
    values.loc[early, "value"] += 0.3
    table = analysis.table(values)
    found = table[table.what == "early_minus_late"].set_index(["arm", "kind"])["mean"]
    assert found["images", "mislabelled"] == pytest.approx(0.3, abs=0.01)
    assert found["texts", "secret"] == pytest.approx(0.0, abs=0.01)


def test_scenarios_have_the_blocks_and_kinds_of_the_analysis() -> None:
    for arm, name in run.SCENARIOS.items():
        scenario = fedmem.load_scenario(FOLDER / name)
        kinds = {str(getattr(injection, "label", "") or injection.name) for injection in scenario.injections}
        assert kinds == {*analysis.MEMORISED[arm], "typical"}


def test_the_committed_tables_are_those_of_the_analysis() -> None:
    results, gates = (pd.read_csv(FOLDER / f"{name}.csv") for name in ("results", "gates"))
    assert set(results.seeds) == {5}
    assert gates.claim.tolist() == analysis.gates(made()).claim.tolist()
    for arm, blocks in analysis.ARMS.items():
        shares = results[(results.arm == arm) & (results.what == "returned")]
        assert sorted(set(shares.block)) == list(range(blocks + 1))
        assert shares[shares.block == 0]["mean"].to_numpy() == pytest.approx(1.0), "all blocks are the other model"
