"""The experiment on adapters: readings at equal utility and claims on made values, and the whole of it in small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import fedmem
from experiments.adapters import analysis, choose, gates, public, run
from experiments.adapters.arms import CENTRAL, CHOSEN, DEVELOPMENT, FEDERATED, LEVELS, RATES, SLOWER, TRAINED, arms
from experiments.adapters.figure import FIGURE
from experiments.adapters.image_network import AdaptedLinear, AdaptedMlp
from experiments.adapters.public import public_model, public_network
from fedmem.studies.experiment import write_results

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments" / "adapters"


def test_a_level_is_reached_between_two_rounds() -> None:
    losses = np.array([4.0, 4.2, 3.4, 3.0, 3.6])
    assert analysis.crossing(losses, 0.0) == 0.0
    assert analysis.crossing(losses, 0.2) == pytest.approx(1.5)
    assert analysis.crossing(losses, 1.0) == pytest.approx(3.0)
    assert np.isnan(analysis.crossing(losses, 1.1))


def rounds_of(losses: list[float], values: list[float]) -> pd.DataFrame:
    """One measure and the loss over rounds."""
    rows: list[dict[str, Any]] = []
    for number, (loss, value) in enumerate(zip(losses, values, strict=True)):
        common = {"round": number, "n": 24, "top": 9.0}
        rows.append(common | {"metric": "test_loss", "kind": "", "place": "global", "value": loss})
        rows.append(common | {"metric": "exposure_gain", "kind": "secret", "place": "local", "value": value})
    return pd.DataFrame(rows)


def test_measures_are_read_on_the_line_between_rounds() -> None:
    read = analysis.at_levels(rounds_of([4.0, 3.0, 2.0], [0.0, 1.0, 3.0]), {"near": 0.5, "far": 1.5, "never": 2.5})
    found = read[read.metric == "exposure_gain"].set_index("at").value
    assert found["near"] == pytest.approx(0.5)
    assert found["far"] == pytest.approx(2.0)
    assert np.isnan(found["never"])
    assert found[analysis.LAST] == 3.0
    losses = read[read.metric == "test_loss"].set_index("at").value
    assert losses["near"] == pytest.approx(3.5)
    assert losses["far"] == pytest.approx(2.5)
    numbers = read[read.metric == "round"].set_index("at").value
    assert numbers["far"] == pytest.approx(1.5)
    assert numbers[analysis.LAST] == 2


def made(effects: dict[str, float], *, seeds: int = 5, central: float = 1.0) -> pd.DataFrame:
    """Memorisation of each trained part at all levels; the owning client has twice the aggregate, others half."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for where, scale in ((FEDERATED, 1.0), (CENTRAL, central)):
            for trained in (*TRAINED, SLOWER):
                for at in (*gates.PARTIAL, analysis.LAST):
                    for place, factor in (("local", 2.0), ("global", 1.0), ("others", 0.5)):
                        row: dict[str, Any] = {"task": "texts", "where": where, "trained": trained, "at": at}
                        row |= {"metric": "exposure_gain", "kind": "secret", "place": place, "seed": seed}
                        value = effects[trained] * factor * scale + rng.normal(0, 0.01)
                        rows.append(row | {"value": value, "n": 24, "top": 9.0})
    return pd.DataFrame(rows)


EFFECTS = {"full": 2.0, "r=16": 1.0, "r=4": 0.5, "r=1": 0.15, "head": 3.0, SLOWER: 2.0}


def verdicts(values: pd.DataFrame) -> Any:
    return gates.gates(values).set_index(["claim", "level"])


def test_claims_hold_or_not_by_planted_effects() -> None:
    found = verdicts(made(EFFECTS, central=3.0))
    for level in ("local", "global"):
        bossy = found[found.gate == "Bossy"]
        assert bossy.verdict["full exceeds r=16", level] == "holds"
        assert bossy.ratio["full exceeds r=16", level] == pytest.approx(2, abs=0.1)
        assert bossy.verdict["full exceeds head", level] == "contradicted"
        assert bossy.verdict["full exceeds r=16 tenfold", level] == "contradicted"
        assert bossy.verdict["full exceeds r=1 tenfold", level] == "holds"
        assert found.verdict["r=16 exceeds r=4", level] == "holds"
        assert found.verdict["full at its rate exceeds full at the lower rate", level] == "not significant"
        assert found.verdict["central exceeds federated, r=4", level] == "holds"
    assert found.verdict["the owning client exceeds others, full", "local"] == "holds"
    weak = verdicts(made(EFFECTS, central=0.5))
    assert weak.verdict["central exceeds federated, full", "local"] == "contradicted"


def test_an_arm_that_never_reaches_a_level_is_undefined() -> None:
    values = made(EFFECTS)
    is_lost = (values.trained == "r=1") & (values["at"] == "r=1") & (values["where"] == FEDERATED) & (values.seed == 3)
    values.loc[is_lost, "value"] = np.nan
    found = verdicts(values)
    found = found[found.gate == "Bossy"]
    assert found.verdict["full exceeds r=1", "local"] == "undefined"
    assert found.verdict["full exceeds r=4", "local"] == "holds"
    columns: Any = analysis.table(values).set_index(["where", "trained", "at", "place"])
    lost: Any = columns.loc[(FEDERATED, "r=1", "r=1", "local")]
    assert (lost.reached, lost.seeds) == (4, 5)
    assert np.isnan(lost["mean"])


def test_values_at_their_ceiling_are_marked() -> None:
    values = made(EFFECTS)
    values.loc[(values.trained == "head") & (values.place == "local"), "top"] = 5.5
    found = verdicts(values)
    assert found.saturated["full exceeds head", "local"].all()
    assert not found.saturated["full exceeds head", "global"].any()


def test_adapters_begin_as_the_layer_and_train_alone() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(6, 4)
    adapted = AdaptedLinear(plain, 2)
    adapted.load_state_dict({**plain.state_dict(), "lora_a": adapted.lora_a, "lora_b": adapted.lora_b})
    rows = torch.randn(5, 6)
    torch.testing.assert_close(adapted(rows), plain(rows))
    with torch.no_grad():
        adapted.lora_b.fill_(1.0)
    expected = plain(rows) + 2 * rows @ (adapted.lora_b @ adapted.lora_a).T
    torch.testing.assert_close(adapted(rows), expected)


@pytest.mark.parametrize(
    ("fields", "trained"),
    [
        ({}, {"hidden1.weight", "hidden1.bias", "hidden2.weight", "hidden2.bias", "output.weight", "output.bias"}),
        ({"train": "head"}, {"output.weight", "output.bias"}),
        (
            {"r": 2},
            {"output.weight", "output.bias", *(f"hidden{i}.lora_{name}" for i in (1, 2) for name in "ab")},
        ),
    ],
)
def test_what_is_trained_of_the_network(fields: dict[str, Any], trained: set[str]) -> None:
    network = AdaptedMlp((1, 4, 4), 3, **fields)
    assert {name for name, value in network.named_parameters() if value.requires_grad} == trained
    assert network(torch.zeros(2, 1, 4, 4)).shape == (2, 3)


def test_every_arm_is_a_scenario_that_differs_from_the_others() -> None:
    ids = set()
    for arm in arms():
        changes = [*arm.changes(Path("public")), f"client.lr={CHOSEN[arm.task][arm.where][arm.trained]}"]
        scenario = fedmem.load_scenario(FOLDER / ("scenario.yaml" if arm.task == "texts" else "classes.yaml"), changes)
        assert (scenario.central is not None) == (arm.where == CENTRAL)
        ids.add(scenario.id)
    assert len(ids) == len(arms()) == 22
    assert DEVELOPMENT not in range(50)


def test_rates_and_levels_follow_from_the_development_seed() -> None:
    rates = pd.read_csv(FOLDER / "rates.csv")
    for arm in arms():
        tried = rates[(rates.task == arm.task) & (rates["where"] == arm.where) & (rates.trained == arm.trained)]
        assert set(tried.rate) == (set() if arm.trained == SLOWER else set(arm.rates))
    assert len(rates) == len(list(choose.STUDY.cells(choose.STUDY.seeds)))
    best: Any = rates.loc[rates.groupby(["task", "where", "trained"]).test_loss.idxmin()]
    best = best.set_index(["task", "where", "trained"])
    for task, levels in LEVELS.items():
        for trained in TRAINED:
            for where in (FEDERATED, CENTRAL):
                assert CHOSEN[task][where][trained] == best.rate[task, where, trained]
        assert CHOSEN[task][FEDERATED][SLOWER] == max(rate for rate in RATES if rate < CHOSEN[task][FEDERATED]["full"])
        for trained, fall in levels.items():
            least = min(best.fall[task, where, trained] for where in (FEDERATED, CENTRAL))
            assert fall == pytest.approx(0.9 * least, abs=0.0051)


def test_committed_tables_have_all_arms_and_seeds() -> None:
    table = pd.read_csv(FOLDER / "results.csv")
    assert table.seeds.min() >= 5
    found = set(zip(table.task, table["where"], table.trained, strict=True))
    assert found == {(task, where, t) for task, places in CHOSEN.items() for where in places for t in places[where]}
    losses = table[(table.metric == "test_loss") & (table["at"] != analysis.LAST)]
    # one level is one loss in all arms of a task that reach it
    assert losses.groupby(["task", "at"])["mean"].agg(np.ptp).max() < 0.02


@pytest.mark.slow
def test_the_experiment_in_small_from_pretraining_to_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["dataset={kind: shakespeare, clients: 2, length: 12, max_chars: 2000}", "clients=2", "rounds=1"]
    folder = public_model(tmp_path, [*texts, "model.config.n_layer=1", "model.config.n_embd=8"])
    monkeypatch.setitem(public.PUBLIC, "texts", lambda out: folder)
    secret = "{kind: secret, template: 'the code is {digits:2}', per_client: 1}"
    small = ["rounds=2", "clients=2", "bootstrap=20", f"injections=[{secret}, {{kind: typical, per_client: 1}}]"]
    data = "{kind: shakespeare, clients: 2, length: 12, max_chars: 2000"
    small.append(f"dataset={data}, tokenizer: {folder}}}")
    frames = [
        run.cell(arm, 0, tmp_path, small)
        for arm in arms()
        if arm.task == "texts" and (arm.trained, arm.where) in {("r=1", FEDERATED), ("full", CENTRAL)}
    ]
    values = pd.concat(frames, ignore_index=True)
    table = analysis.table(values)
    assert set(table.trained) == {"full", "r=1"}
    assert {"exposure_gain", "memorisation", "auc", "test_loss", "round"} <= set(table.metric)
    assert set(gates.gates(values).verdict) == {"undefined"}
    write_results(tmp_path, {"results": table}, [FIGURE], digits=4)
    assert FIGURE.is_current(tmp_path)
    (full,) = [arm for arm in arms() if (arm.task, arm.trained, arm.where) == ("texts", "full", CENTRAL)]
    utility = choose.utility(full, CHOSEN["texts"][CENTRAL]["full"], 0, tmp_path, small)
    losses = values[(values.metric == "test_loss") & (values["at"] == analysis.LAST) & (values.trained == "full")]
    assert utility.test_loss[0] <= losses.value.item()


@pytest.mark.slow
def test_images_start_from_clothes_that_a_run_has_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = "dataset={kind: synthetic, shape: [1, 8, 8], classes: 3, rows: 60, test: 30}"
    folder = public_network(tmp_path, [images, "rounds=1", "observe.every=1"])
    monkeypatch.setitem(public.PUBLIC, "classes", lambda out: folder)
    kinds = "injections=[{kind: mislabelled, per_client: 1}, {kind: random_pattern, per_client: 1}]"
    small = ["rounds=2", "clients=2", images, "partition={kind: iid}", "references=8", "bootstrap=20", kinds]
    for arm in arms():
        if arm.task == "classes" and (arm.trained, arm.where) in {("r=4", FEDERATED), ("head", CENTRAL)}:
            values = run.cell(arm, 0, tmp_path, small)
            assert {"mislabelled", "random_pattern"} <= set(values.kind)
