"""Secrets in federated language models: the gates on made numbers, and the experiment in small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.federated_secrets import analysis, figure, run
from fedmem.studies.experiment import with_references
from tests.banks import make_bank
from tests.experiments.study_helpers import small_study

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "federated_secrets"
NULL = 1.44


def made(rng: np.random.Generator, *, seeds: int = 6, sign: float = 1.0) -> pd.DataFrame:
    """Everything as published, or with the opposite sign: a bit for each doubling of copies, of holders, of cohorts."""
    rows = []
    arms = {analysis.PLAIN: 0.0, analysis.THROUGHOUT: 0.0, analysis.CLIPPED: -2.0, analysis.PRIVATE: -3.0}
    arms |= {analysis.SHUFFLED: 2.0, analysis.BY_CLIENT: 1.0, "cohort of 4": 1.0, "cohort of 16": -1.0}
    for seed in range(seeds):
        own = rng.normal(0, 0.3)
        for arm, shift in arms.items():
            for kind in {**analysis.COPIES, **analysis.OWNERS}:
                copies = np.log2(analysis.COPIES.get(kind, 16)) + np.log2(analysis.OWNERS.get(kind, 1))
                for place in ("local", "global"):
                    value = NULL + own + sign * (1 + shift * (place == "global") + copies) + rng.normal(0, 0.1)
                    row = {"data": "d", "arm": arm, "seed": seed, "kind": kind, "place": place, "statistic": ""}
                    row["saturated_from"] = 12.8
                    rows.append({**row, "metric": "exposure", "value": value, "n": 10})
                    p = {**row, "metric": "exposure_p", "value": rng.uniform(0.001, 0.05) if sign > 0 else rng.random()}
                    rows.append({**p, "n": 10})
    return pd.DataFrame(rows)


def lines(seeds: int = 6, gain: float = 3.0) -> pd.DataFrame:
    """The test loss is lowest at round 8; the gain in exposure is 0 at first, then this."""
    rows = []
    for seed in range(seeds):
        for round_number, loss in ((4, 3.0), (8, 2.0 + 0.01 * seed), (12, 2.5)):
            row = {"data": "d", "arm": "fedavg", "seed": seed, "round": round_number}
            rows.append({**row, "metric": "test_loss", "kind": "", "value": loss})
            shown = (gain + 0.1 * seed) * (round_number >= 8) + 50 * (round_number > 8)
            rows.append({**row, "metric": "exposure_gain", "kind": "x16", "value": shown})
    return pd.DataFrame(rows)


def jumps(seeds: int = 6, value: float = 0.5) -> pd.DataFrame:
    return pd.DataFrame([{"data": "d", "seed": seed, "value": value + 0.01 * seed} for seed in range(seeds)])


def test_gates_hold_on_planted_effects_and_not_on_opposite_ones() -> None:
    rng = np.random.default_rng(0)
    gates = analysis.gates
    found = gates(made(rng), lines(), jumps(), NULL)
    assert set(found.gate) == {f"Q{k}" for k in range(1, 8)}
    assert set(found.verdict) == {"holds"}
    doubling = found[found.claim.str.contains("each doubling") & (found.gate != "Q7")]
    assert doubling.value.to_numpy() == pytest.approx(1.0, abs=0.1)
    assert found[found.gate == "Q7"].value.item() == pytest.approx(1.0, abs=0.1)
    assert found[found.gate == "Q4"].value.item() == pytest.approx(3.25)
    assert (found.low <= found.value).all()
    assert (found.seeds == 6).all()
    once = found[found.p.notna()]
    assert len(once) == 2
    assert (once.p < 1e-3).all()
    opposite = gates(made(rng, sign=-1.0), lines(gain=-3.0), jumps(value=-0.5), NULL)
    assert set(opposite.verdict) == {"contradicted"}
    assert opposite[opposite.p.notna()].p.min() > 1e-3


def test_without_an_arm_or_with_one_seed_nothing_is_claimed() -> None:
    values = made(np.random.default_rng(1))
    fewer = values[values.arm != analysis.SHUFFLED]
    found: Any = analysis.gates(fewer, lines(), jumps(), NULL).set_index("claim")
    missing = found.loc["central training in random order exposes more than client by client"]
    assert (missing.verdict, missing.seeds) == ("undefined", 0)
    assert (found.drop(missing.name).verdict == "holds").all()
    single = analysis.gates(values[values.seed == 0], lines(1), jumps(1), NULL)
    assert set(single.verdict) == {"undefined"}


def test_values_of_a_seed_that_lacks_a_kind_do_not_count() -> None:
    values = made(np.random.default_rng(2))
    lost = (values.kind == "x2") & (values.seed == 4) & (values.arm == analysis.THROUGHOUT)
    found = analysis.gates(values[~lost], lines(), jumps(), NULL)
    rises = found[found.claim.str.startswith("exposure rises")]
    assert (rises.seeds == 5).all()
    assert rises.value.to_numpy() == pytest.approx(1.0, abs=0.1)


def test_differences_are_paired_by_seeds() -> None:
    values = made(np.random.default_rng(3))
    values["value"] += 20 * values.seed
    found: Any = analysis.table(values).set_index(["arm", "kind", "place"])
    one = found.loc[("norm_clipping", "x4", "global")]
    assert one.difference == pytest.approx(-2, abs=0.3)
    assert one.difference_high - one.difference_low < 1 < one.high - one.low
    assert one.n == 60
    assert np.isnan(found.loc[("fedavg", "x4", "global")].difference)


def test_saturated_exposure_is_marked_in_table_and_gates() -> None:
    values = made(np.random.default_rng(4))
    clean = analysis.gates(values, lines(), jumps(), NULL)
    assert not clean.saturated.any()
    values.loc[(values.arm == analysis.SHUFFLED) & (values.kind == "x16") & (values.metric == "exposure"), "value"] = (
        13.2
    )
    table: Any = analysis.table(values).set_index(["arm", "kind", "place"])
    shuffled = table.loc[(analysis.SHUFFLED, "x16", "global")]
    assert (shuffled.saturated, shuffled.reference_saturated) == (True, False)
    assert not table.loc[(analysis.PLAIN, "x16", "global")].saturated
    found = analysis.gates(values, lines(), jumps(), NULL)
    touched = found[found.saturated].claim.tolist()
    assert touched == ["central training in random order exposes more than client by client"]
    local = (values.arm == analysis.THROUGHOUT) & (values.place == "local") & (values.metric == "exposure")
    values.loc[local & (values.kind == "x16"), "value"] = 13.2
    found = analysis.gates(values, lines(), jumps(), NULL)
    assert found[found.claim.str.endswith("(local)") & found.claim.str.startswith("exposure rises")].saturated.all()
    assert not found[found.claim.str.endswith("(global)")].saturated.any()
    drawn = figure.draw(with_references(analysis.table(values), 9990), lines().assign(arm="fedavg"))
    assert "saturated: no differences seen" in {text.get_text() for text in drawn.legends[0].get_texts()}


def test_the_committed_tables_mark_what_is_saturated() -> None:
    results, gates = (pd.read_csv(FOLDER / f"{name}.csv") for name in ("results", "gates"))
    secrets = results[(results.metric == "exposure") & (results.kind != "random_tokens")]
    # 10 000 members of the template, of which ten are secrets
    assert (secrets.saturated == (secrets["mean"] >= np.log2(9991) - 0.5)).all()
    sixteen = secrets[(secrets.kind == "x16") & (secrets.place == "local") & (secrets.arm == "fedavg")]
    assert sixteen.saturated.all()
    assert gates[gates.claim.str.startswith("central training in random")].saturated.all()
    assert not gates[gates.gate.isin(["Q2", "Q3", "Q7"])].saturated.any()


def test_page_quotes_owning_clients_that_are_not_saturated() -> None:
    page, table = (FOLDER / "README.md").read_text(), pd.read_csv(FOLDER / "results.csv")
    at_owner = table[(table.metric == "exposure") & (table.kind == "x8") & (table.place == "local")]
    own = at_owner[at_owner.data == "shakespeare"]
    cells: dict[str, Any] = dict(zip(own.arm, own.itertuples(), strict=True))
    assert not cells["fedavg"].saturated
    for arm in ("krum", "norm_clipping", "fedmedian", "fedavgm"):
        row = cells[arm]
        text = f"{row.difference:.2f} [{row.difference_low:.2f}, {row.difference_high:.2f}]".replace("-", "−")
        assert f"| `{arm}` | {text} |" in page


def test_spikes_are_changes_in_rounds_with_the_owner() -> None:
    """Exposure rises by log2 2 = 1 bit in a round with the holder, and falls by half a bit in any other."""
    bank = make_bank(runs=4, clients=6, cohort=3, rounds=(0, 1, 2, 3, 4), kinds=("random_pattern",), per_client=1)
    audit = replace(bank.audit, is_in=np.ones_like(bank.audit.is_in))
    cohorts = {r: {p.client for p in bank.participation if p.round == r} for r in (1, 2, 3, 4)}
    bits = np.full(len(audit), 6.0)
    blocks = []
    for block in sorted((b for b in bank.references if b.level == "global"), key=lambda b: b.round):
        if block.round:
            bits = bits + np.where(np.isin(audit.owner, sorted(cohorts[block.round])), 1.0, -0.5)
        rank = (10**6 + 1) / 2**bits
        less = np.tile(np.round(rank - 1).astype(np.int32), (len(block.run), 1))
        blocks.append(replace(block, count=10**6, less=less, ties=np.zeros_like(less)))
    made_up = replace(bank, audit=audit, references=tuple(blocks))
    assert analysis.spikes(made_up, ["random_pattern"]) == pytest.approx(1.5, abs=1e-3)
    assert np.isnan(analysis.spikes(made_up, ["another"]))
    # a secret that two clients hold spikes at both of them
    both = np.stack([audit.owner, (audit.owner + 1) % 6], axis=1).ravel().astype(np.int32)
    shared = replace(made_up, audit=replace(audit, copies=np.full(len(audit), 2, np.int32), copy_owner=both))
    assert analysis.spikes(shared, ["random_pattern"]) < 1.4


def test_every_arm_is_a_scenario_that_differs_from_the_others() -> None:
    import fedmem

    ids = []
    for changes in run.ARMS.values():
        scenario = fedmem.load_scenario(FOLDER / "scenario.yaml", changes)
        ids.append(scenario.id)
        assert scenario.clients == 20
        labels: dict[str, Any] = {injection.name: injection for injection in scenario.injections}
        for label, copies in analysis.COPIES.items():
            assert labels[label].copies == copies
            assert labels[label].shared_by == 1
        for label, owners in analysis.OWNERS.items():
            assert labels[label].shared_by == owners
            assert labels[label].copies * owners == 16
    assert len(set(ids)) == len(run.ARMS) >= 9
    assert {analysis.PLAIN, analysis.CLIPPED, analysis.PRIVATE} <= set(run.ARMS)
    assert set(analysis.COHORTS) <= set(run.ARMS)
    assert set(run.DATA) == {"shakespeare", "sotu"}


@pytest.mark.nightly
@pytest.mark.slow
def test_small_experiment_gives_gates_twice(tmp_path: Path) -> None:
    small = [
        "dataset={kind: shakespeare, clients: 20, length: 24, max_chars: 1500, test: 0.1}",
        "rounds=4",
        "observe.every=4",
    ]
    small += ["client.steps=2", "bootstrap=20", "references=50", "population=0", "exclusion=remove"]
    small += ["model={kind: char_rnn, embedding: 8, hidden: 8}"]
    files = small_study(
        run.STUDY,
        tmp_path,
        small,
        seeds=(0, 1),
        chosen=lambda data, arm, seed: data == "shakespeare" and arm in (analysis.PLAIN, analysis.CLIPPED),
    )
    assert set(files) == {"results.csv", "rounds.csv", "gates.csv", "federated_secrets.png"}
    found = pd.read_csv(tmp_path / "first" / "results.csv")
    assert set(found.arm) == {"fedavg", "fedavg, each secret in the last round of an owner", "norm_clipping"}
    assert set(found.place) == {"local", "others", "global"}
    assert {"exposure", "exposure_gain", "memorisation", "test_accuracy"} == set(found.metric)
    gates = pd.read_csv(tmp_path / "first" / "gates.csv").set_index("claim")
    assert gates.loc["clipping lowers exposure"].seeds == 2
    assert gates.loc["the aggregate's exposure rises more where an owner took part"].seeds == 2
    assert gates.loc["larger cohorts expose less, bits for each doubling"].seeds == 0
