"""A federation that starts from a finished run or a file starts with exactly these weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import fedmem
from fedmem.contracts.federation import digest
from fedmem.errors import ComponentError, FolderError
from fedmem.execution.run import run
from fedmem.federation.build import build, check
from fedmem.federation.pretrained import _is_same_data
from fedmem.scenario.scenario import Scenario
from tests.normalised import normed
from tests.tiny import tiny

SAVED = {"models": {"rounds": [-1], "levels": ["global"]}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = {"kind": "synthetic", "rows": 400, "test": 100}
    scenario = tiny(
        name="pre",
        rounds=2,
        runs=1,
        sampler={"kind": "everyone"},
        central="shuffled",
        injections=[],
        dataset=data,
        save=SAVED,
    )
    return run(scenario, out=tmp_path_factory.mktemp("runs"))


def fine(source: Path | str, *, leave: Sequence[str] = (), model: Any = None, **section: Any) -> Scenario:
    changes = {"observe": {"every": 1}, **({} if model is None else {"model": model})}
    weights = {"from": str(source), "except": list(leave), **section}
    return tiny(name="fine", rounds=1, initial_weights=weights, **changes)


def test_training_starts_from_the_aggregate_of_the_run(finished: Path, tmp_path: Path) -> None:
    (model,) = fedmem.read(finished).models(level="global", run=0)
    federation = build(fine(finished))
    assert set(federation.initial) == set(model.params)
    assert all(torch.equal(federation.initial[name], value) for name, value in model.params.items())
    assert federation.initials == ()
    (note,) = federation.initial_notes
    assert note.startswith("4 tensors (556 numbers) are from ")
    assert "fresh" not in note

    # evidence of round 0 is that of the aggregate, and of no freshly drawn network
    losses = {}
    for name, scenario in (("fine", fine(finished)), ("fresh", tiny(name="fresh", rounds=1, observe={"every": 1}))):
        evidence = fedmem.read(run(scenario, out=tmp_path)).evidence
        start = evidence[(evidence["round"] == 0) & (evidence["run"] == 1) & (evidence["set"] == "test")]
        losses[name] = start.sort_values("subject").loss.to_numpy()
    network = federation.model
    network.load_state_dict(model.params)
    rows = federation.test
    with torch.no_grad():
        logits = network(torch.from_numpy(rows.inputs))
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(rows.targets), reduction="none").numpy()
    np.testing.assert_allclose(losses["fine"], expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(losses["fresh"], expected, rtol=1e-2)


def test_frozen_parameters_are_those_of_the_run(finished: Path) -> None:
    (model,) = fedmem.read(finished).models(level="global", run=0)
    scenario = fine(finished, leave=["output.*"]).model_copy(update={"freeze": ("hidden1.*",)})
    federation, drawn = build(scenario), build(tiny())
    assert torch.equal(federation.frozen["hidden1.weight"], model.params["hidden1.weight"])
    assert set(federation.initial) == {"output.weight", "output.bias"}
    assert torch.equal(federation.initial["output.weight"], drawn.initial["output.weight"]), "drawn as without weights"
    assert "2 are fresh" in federation.initial_notes[0]


def test_an_undeclared_head_is_a_problem_of_the_scenario(finished: Path) -> None:
    (problem,) = check(fine(finished, model={"kind": "mlp", "hidden": [8, 8]}))
    assert problem.path == "initial_weights"
    assert "it lacks hidden2.weight, hidden2.bias" in problem.message
    (problem,) = check(fine("absent.pt"))
    assert problem.path == "initial_weights.from"


def test_an_export_is_read_by_the_same_path(finished: Path, tmp_path: Path) -> None:
    folder = fedmem.export(finished, "weights", out=tmp_path / "out").folder
    federation, other = build(fine(finished)), build(fine(folder / "model.safetensors"))
    assert all(torch.equal(other.initial[name], value) for name, value in federation.initial.items())
    prefixed = {f"net.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    save_file(prefixed, tmp_path / "net.safetensors")
    with pytest.raises(ComponentError, match="the network has no net"):
        build(fine(tmp_path / "net.safetensors"))


def test_a_prefix_is_put_before_the_names(finished: Path, tmp_path: Path) -> None:
    weights = build(fine(finished)).initial
    part = {name.removeprefix("hidden1."): value for name, value in weights.items() if name.startswith("hidden1.")}
    save_file(part, tmp_path / "part.safetensors")
    federation = build(fine(tmp_path / "part.safetensors", prefix="hidden1.", leave=["output.*"]))
    assert torch.equal(federation.initial["hidden1.weight"], weights["hidden1.weight"])


def test_other_weights_in_the_file_refuse_finished_results(finished: Path, tmp_path: Path) -> None:
    weights = dict(build(fine(finished)).initial)
    file = tmp_path / "w.safetensors"
    save_file(weights, file)
    scenario = fine(file)
    before = digest(build(scenario))
    folder = run(scenario, out=tmp_path)
    assert run(scenario, out=tmp_path) == folder
    assert fedmem.read(folder).manifest["initial_weights"][0].startswith("4 tensors")
    save_file({**weights, "output.bias": weights["output.bias"] + 1}, file)
    assert digest(build(scenario)) != before
    with pytest.raises(FolderError, match=r"the files of initial_weights \(w\.safetensors\)"):
        run(scenario, out=tmp_path)


def test_training_on_the_same_data_set_is_a_warning(finished: Path) -> None:
    (warning,) = build(fine(finished)).warnings
    assert "trained on the data set synthetic as well" in warning
    assert "guarantee" not in warning
    head = ["hidden1.weight", "output.*"]
    other = tiny(initial_weights={"from": str(finished), "except": head}, dataset={"kind": "digits"}, clients=3)
    assert build(other).warnings == ()
    dp_sgd = {"kind": "dp_sgd", "noise_multiplier": 1.0, "batch_size": 8}
    (warning,) = build(tiny(initial_weights={"from": str(finished)}, client=dp_sgd)).warnings
    assert "The guarantee of privacy covers this scenario's training, and not what the run shows of a record" in warning
    assert _is_same_data({"kind": "digits", "rows": 5}, {"kind": "digits", "rows": 9})
    assert not _is_same_data({"kind": "csv", "path": "a"}, {"kind": "csv", "path": "b"})


@pytest.mark.parametrize("kind", ["averaged", "frozen", "to_group"])
def test_a_network_with_normalisation_starts_as_its_run_ended(kind: str, tmp_path: Path) -> None:
    scenario = normed(
        kind, name="pre", runs=2, rounds=1, clients=2, sampler={"kind": "everyone"}, observe={"every": 1}, save=SAVED
    )
    source = run(scenario, out=tmp_path)
    again = {"initial_weights": {"from": str(source)}, "name": "fine", "rounds": 1, "clients": 2}
    federation = build(normed(kind, runs=2, sampler={"kind": "everyone"}, observe={"every": 1}, **again))
    (model,) = fedmem.read(source).models(level="global", run=0, client=-1)
    assert all(torch.equal(federation.initial[name], value) for name, value in model.params.items())
    assert set(federation.initial) == set(model.params)
    assert "fresh" not in federation.initial_notes[0]


def test_a_run_whose_clients_keep_layers_has_no_aggregate(tmp_path: Path) -> None:
    client = {"kind": "fedper", "lr": 0.1, "epochs": 1, "batch_size": 8}
    source = run(tiny(name="pre", rounds=1, observe={"every": 1}, client=client, save=SAVED), out=tmp_path)
    (problem,) = check(fine(source))
    assert problem.path == "initial_weights.from"
    assert "its clients keep layers of their own" in problem.message
