"""Forgetting: claims on made values, and the committed tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedmem
from experiments.forgetting import analysis, run

FOLDER = Path(analysis.__file__).parent


def made(seeds: int = 5) -> pd.DataFrame:
    """Half is kept, and 0.9 of what is left stays each round; with more copies 0.95."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for batches in ("per_run", "shared"):
            for kind in (*analysis.KINDS, *analysis.SECRETS):
                rate = 0.95 if kind in ("four_times", "secret_often") else 0.9
                cell = {"seed": seed, "batches": batches, "kind": kind, "level": "global"}
                rows.append({**cell, "what": "kept", "since": 0, "value": 0.5 + rng.normal(0, 0.01)})
                for since in (1, 2, 4, 8):
                    value = rate**since + rng.normal(0, 0.01)
                    rows.append({**cell, "what": "left", "since": since, "value": value})
                    gain = 0.1 * (batches == "shared")
                    rows.append({**cell, "what": "score_left", "since": since, "value": value + gain})
                    rows.append({**cell, "what": "bits_lost", "since": since, "value": 6 * (1 - value)})
                for since in (0, 1, 2, 4, 8):
                    value = rate**since + rng.normal(0, 0.01)
                    rows.append({**cell, "what": "memory", "since": since, "value": 0.2 * value})
                    rows.append({**cell, "what": "bits", "since": since, "value": 6 * value})
                for level, onset in (("local", 2.0), ("global", 4.0)):
                    row = {**cell, "level": level, "what": "onset", "since": 0}
                    rows.append({**row, "value": onset + rng.normal(0, 0.1)})
            for kind, onset in (("mislabelled", 7.0), ("typical", 3.0)):
                row = {"seed": seed, "batches": batches, "kind": kind, "what": "learning_onset", "since": 0}
                rows += [{**row, "level": level, "value": onset + rng.normal(0, 0.1)} for level in ("local", "global")]
    return pd.DataFrame(rows)


def test_all_claims_hold_where_they_are_true() -> None:
    found = analysis.gates(made())
    assert set(found.verdict) == {"holds"}
    slower = found[found.claim == "repetition slows the fading of patterns"]
    assert slower["mean"].to_numpy() == pytest.approx(0.95**4 - 0.9**4, abs=0.03)


def test_an_onset_that_never_comes_leaves_its_claim_undefined() -> None:
    values = made()
    never = (values.what == "learning_onset") & (values.kind == "mislabelled") & (values.level == "global")
    values.loc[never & (values.seed == 2), "value"] = np.inf
    found = analysis.gates(values).set_index(["claim", "level"]).verdict
    assert found["wrong labels are learnt after ordinary digits", "global"] == "undefined"
    assert found["wrong labels are learnt after ordinary digits", "local"] == "holds"


def test_the_table_has_each_kind_and_time() -> None:
    found = analysis.table(made())
    left = found[(found.what == "left") & (found.batches == "per_run") & (found.kind == "once")]
    assert left.since.tolist() == [1, 2, 4, 8]
    assert left["mean"].to_numpy() == pytest.approx(0.9 ** left.since.to_numpy(), abs=0.02)


def test_secrets_that_do_not_fade_contradict() -> None:
    values = made()
    is_secret = values.kind.isin(analysis.SECRETS)
    values.loc[is_secret & (values.what == "left"), "value"] = 1.1 + 0.001 * values.seed
    values.loc[is_secret & (values.what == "bits_lost"), "value"] = -0.1 - 0.001 * values.seed
    found = analysis.gates(values)
    fades = found.claim.str.startswith("secret") & found.claim.str.contains("while its client is away")
    assert found.verdict[fades].tolist() == ["contradicted"] * 4
    others = ~fades & (found.claim != "repetition slows the fading of secrets")
    assert set(found.verdict[others]) == {"holds"}


def test_losses_and_levels_of_secrets_are_read_with_their_signs() -> None:
    columns = ["metric", "of", "subject", "level", "since", "value"]
    rows = [
        ("decay", "", "secret_often", "global", 4, 0.1),
        ("decay", "", "secret_often", "local", 4, 0.6),
        ("decay_change", "", "secret_often", "global", 4, -0.2),
        ("decay_exposure", "", "secret_often", "local", 0, 8.0),
        ("decay_exposure_change", "", "secret_often", "global", 4, -3.0),
        ("decay", "", "mislabelled", "global", 4, 0.3),
    ]
    table = pd.DataFrame(rows, columns=columns).assign(scope="summary", place="", clock="")
    found = analysis.of_run(Rows(table)).set_index(["what", "kind", "since"]).value  # type: ignore[arg-type]
    assert found.to_dict() == {
        ("memory", "secret_often", 4): 0.1,
        ("owner_memory", "secret_often", 4): 0.6,
        ("memory_lost", "secret_often", 4): 0.2,
        ("owner_bits", "secret_often", 0): 8.0,
        ("bits_lost", "secret_often", 4): 3.0,
    }


class Rows:
    """A run that has these measurements alone."""

    def __init__(self, measurements: pd.DataFrame) -> None:
        self.measurements = measurements


def test_scenarios_have_the_kinds_of_the_analysis() -> None:
    kinds = {
        name: {str(getattr(injection, "label", "") or injection.name) for injection in scenario.injections}
        for name, file in run.SCENARIOS.items()
        for scenario in [fedmem.load_scenario(FOLDER / file)]
    }
    assert kinds == {"digits": {*analysis.KINDS, "typical"}, "texts": {*analysis.SECRETS, "ordinary_text"}}


def test_the_committed_tables_are_those_of_the_analysis() -> None:
    results, gates = (pd.read_csv(FOLDER / f"{name}.csv") for name in ("results", "gates"))
    assert set(results.seeds) == set(gates.seeds) == {5}
    assert gates.claim.tolist() == analysis.gates(made()).claim.tolist()
    values = results.set_index(["batches", "what", "kind", "since"])["mean"]
    for kind in analysis.SECRETS:
        # what is left of the aggregate's memory is less than what it had, and the client's own model has more
        assert values["per_run", "memory", kind, 4] < values["per_run", "memory", kind, 0]
        assert values["per_run", "owner_bits", kind, 0] > values["per_run", "bits", kind, 0]
