"""Models with BatchNorm and dropout: against loops of plain torch, and on every way to train."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fedmem
from fedmem.contracts.arrays import Params
from fedmem.contracts.federation import Federation
from fedmem.contracts.training_mode import TrainingMode, running_statistics
from fedmem.engines.client_settings import client_settings
from fedmem.errors import ComponentError
from fedmem.execution.run import run
from fedmem.federation.build import build, check
from fedmem.federation.normalisation import apply_norm
from fedmem.scenario.normalising import Norm
from fedmem.scenario.scenario import Scenario
from fedmem.training.client_work import LocalWork
from fedmem.training.one_by_one import OneByOne
from tests.normalised import normed

SMALL: dict[str, Any] = {
    "runs": 2,
    "rounds": 3,
    "observe": {"levels": ["local", "global"]},
    "clients": 2,
    "sampler": {"kind": "everyone"},
    "dataset": {"kind": "synthetic", "rows": 150, "test": 20},
    "population": 5,
    "save": {"models": {"rounds": [-1]}},
}


LR = 0.02
"""A small learning rate, so that rounding stays below a millionth."""

ORACLE: dict[str, Any] = {"rounds": 2, "client": {"kind": "sgd", "lr": LR, "epochs": 1, "batch_size": 8}}


def small(kind: str | None = "averaged", **changes: Any) -> Scenario:
    return normed(kind, **{**SMALL, **changes})


def saved(scenario: Scenario, folder: Path) -> dict[tuple[int, str, int], Params]:
    """The models of the last round by run, level and client, as saved."""
    read = fedmem.read(run(scenario, out=folder))
    return {(one.run, one.level, one.client): dict(one.params) for one in read.models()}


def equal(one: dict[Any, Params], other: dict[Any, Params]) -> bool:
    """Whether all models are the same to the last bit."""
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[key][name]) for key, model in one.items() for name, value in model.items())


def plain_client(network: nn.Module, scenario: Scenario, federation: Federation, place: tuple[int, int, int]) -> int:
    """Train a network with plain torch on the batches of a client (run, round, client): its number of rows."""
    run_number, round_number, client = place
    work = LocalWork(federation, scenario.client, scenario.seed)
    task = work.task(run_number, round_number, client, {})
    optimizer = torch.optim.SGD(network.parameters(), lr=LR)
    network.train()
    for batch in task.batches:
        rows = task.rows[batch[batch >= 0]]
        optimizer.zero_grad()
        outputs = network(torch.from_numpy(federation.store.inputs[rows]))
        nn.functional.cross_entropy(outputs, torch.from_numpy(federation.store.targets[rows])).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return len(task.rows)


def plain_run(scenario: Scenario, own: Callable[[str], bool], change: Callable[[nn.Module], None] = lambda _: None):  # type: ignore[no-untyped-def]
    """FedAvg over whole state dicts with plain torch; entries for which `own` holds stay with each client."""
    federation = build(scenario)
    server = copy.deepcopy(federation.model)
    change(server)
    stored: dict[int, dict[str, Tensor]] = {}
    for round_number in range(1, scenario.rounds + 1):
        states, sizes = [], []
        for client in range(scenario.clients):
            network = copy.deepcopy(server)
            network.load_state_dict(stored.get(client, {}), strict=False)
            sizes.append(plain_client(network, scenario, federation, (0, round_number, client)))
            states.append({name: value.clone() for name, value in network.state_dict().items()})
            stored[client] = {name: value for name, value in states[-1].items() if own(name)}
        mean = {
            name: sum(size * state[name].double() for size, state in zip(sizes, states, strict=True)) / sum(sizes)
            for name in states[0]
            if not own(name) and not name.endswith("tracked")
        }
        server.load_state_dict(mean, strict=False)
    return dict(server.state_dict().items()), states


def is_near(model: Params, state: dict[str, Tensor]) -> bool:
    return all(torch.allclose(value, state[name], rtol=0, atol=1e-6) for name, value in model.items())


def slower(network: nn.Module) -> None:
    """Another momentum of the statistics."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.momentum = 0.2


def test_averaged_statistics_equal_a_plain_loop(tmp_path: Path) -> None:
    scenario = small(**ORACLE)
    models = saved(scenario, tmp_path)
    server, clients = plain_run(scenario, lambda name: False)
    assert "norm.running_var" in models[0, "global", -1]
    assert "norm.num_batches_tracked" not in models[0, "global", -1]
    assert is_near(models[0, "global", -1], server)
    assert all(is_near(models[0, "local", client], clients[client]) for client in range(2))
    assert not is_near(models[0, "global", -1], plain_run(scenario, lambda name: False, slower)[0])


def test_local_norm_equals_a_plain_loop_of_fedbn(tmp_path: Path) -> None:
    scenario = small("local", **ORACLE)
    models = saved(scenario, tmp_path)
    server, clients = plain_run(scenario, lambda name: name.startswith("norm."))
    for client in range(2):
        assert is_near(models[0, "local", client], clients[client])
        completed = server | {name: value for name, value in clients[client].items() if name.startswith("norm.")}
        assert is_near(models[0, "global", client], completed), "the aggregate is completed by each client's layers"
    assert not is_near(models[0, "local", 0], plain_run(scenario, lambda name: "running" in name)[1][0])


@pytest.mark.parametrize("kind", ["averaged", "local"])
def test_watching_changes_no_bit_of_training(kind: str, tmp_path: Path) -> None:
    more: Any = {"probes": [{"kind": "utility"}], "signals": [{"kind": "grad_norm"}, {"kind": "update_alignment"}]}
    drops = {"model": {"p": 0.3}}
    seen = saved(small(kind, observe={"every": 1}, **more, **drops), tmp_path / "seen")
    assert equal(seen, saved(small(kind, **drops), tmp_path / "unseen"))


def test_outputs_while_watching_follow_from_each_row_alone() -> None:
    federation = build(small())
    store = federation.store
    inputs = store.inputs[:6]
    executor = OneByOne(federation.model, small().client, store, client_settings(small(), federation))
    alone = np.concatenate([executor.logits([federation.initial], inputs[i : i + 1]) for i in range(6)], axis=1)
    assert np.allclose(executor.logits([federation.initial], inputs), alone, atol=1e-6)
    statistics = running_statistics(federation.model)
    assert all(torch.equal(value, federation.initial[name]) for name, value in statistics.items())
    # what a network in training mode would answer
    assert not np.allclose(
        OneByOne(federation.model.train(), small().client, store).logits([federation.initial], inputs), alone, atol=1e-3
    )


WAYS: dict[str, dict[str, Any]] = {
    "messages": {"server": "messages"},
    "one process": {"workers": 1},
    "two processes": {"workers": 2},
    "shards": {"shard": 1, "workers": 1},
    "two threads of shards": {"shard": 1, "workers": 2, "server": "messages"},
}


@pytest.fixture(scope="module")
def rule(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[tuple[int, str, int], Params]]:
    folder = tmp_path_factory.mktemp("rule")
    return {
        kind: saved(small(kind, model={"p": 0.3}, speed={"workers": 1, "server": "rule"}), folder / kind)
        for kind in ("averaged", "local")
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["averaged", "local"])
def test_every_way_to_train_gives_the_same_bits(kind: str, way: str, rule: Any, tmp_path: Path) -> None:
    assert equal(saved(small(kind, model={"p": 0.3}, speed=WAYS[way]), tmp_path), rule[kind])


def test_scaffold_corrects_parameters_and_no_statistics(tmp_path: Path) -> None:
    """The first round of SCAFFOLD is FedAvg's, and its statistics are means of those of clients in each round."""
    models = saved(small(strategy={"kind": "scaffold"}), tmp_path)
    for part in ("running_mean", "running_var"):
        mean = sum(models[0, "local", client][f"norm.{part}"] for client in range(2)) / 2
        assert torch.allclose(models[0, "global", -1][f"norm.{part}"], torch.as_tensor(mean), atol=1e-6)


@pytest.mark.parametrize(
    "client",
    [
        {"kind": "sgd", "lr": 0.2, "weight_decay": 0.5, "momentum": 0.5, "clip": 1e-3, "epochs": 1, "batch_size": 8},
        {"kind": "top_k", "lr": 1e-6, "share": 0.01, "epochs": 1, "batch_size": 8},
        {"kind": "fedper", "lr": 1e-6, "epochs": 1, "batch_size": 8},
    ],
)
def test_no_client_algorithm_touches_statistics(client: dict[str, Any], tmp_path: Path) -> None:
    """Steps that go nowhere leave the statistics of the initial parameters, whatever decays, clips or sparsifies."""
    still = {"kind": "sgd", "lr": 1e-9, "epochs": 1, "batch_size": 8}
    changed = client | {"lr": 1e-9}
    one, other = (saved(small(client=each, rounds=1), tmp_path / name) for name, each in (("a", changed), ("b", still)))
    for key in ((0, "local", 0), (1, "local", 1)):
        assert torch.allclose(one[key]["norm.running_var"], other[key]["norm.running_var"], atol=1e-6)
        assert not torch.allclose(one[key]["norm.running_var"], torch.ones(8), atol=1e-2), "it has been updated"


def test_defences_leave_what_stays_with_clients_alone(tmp_path: Path) -> None:
    noise: Any = [{"kind": "noise", "multiplier": 0.5, "norm": 1.0}]
    models = saved(small("local", defences=noise, rounds=1), tmp_path)
    initial = build(small("local")).initial
    federation = build(small("local", defences=noise))
    settings = client_settings(small("local", defences=noise), federation)
    work = LocalWork(federation, small("local").client, 3)
    executor = OneByOne(federation.model, small("local").client, federation.store, settings)
    (done,) = executor.train([work.task(0, 1, 0, federation.initial)])
    for name, value in done.outcome.sent.items():
        assert torch.equal(value, initial[name]) == name.startswith("norm."), name
    assert not torch.equal(models[0, "local", 0]["norm.weight"], initial["norm.weight"])


# --- frozen and to_group ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["frozen", "to_group"])
def test_constant_norms_are_stacked_as_one_by_one(kind: str, tmp_path: Path) -> None:
    one, other = (saved(small(kind, speed={"executor": each}), tmp_path / each) for each in ("stacked", "one_by_one"))
    assert list(one[0, "global", -1]) == ["1.weight", "1.bias", "norm.weight", "norm.bias", "out.weight", "out.bias"]
    for key, model in one.items():
        assert all(torch.allclose(value, other[key][name], atol=1e-5) for name, value in model.items())


@pytest.mark.parametrize("kind", ["frozen", "to_group"])
@pytest.mark.parametrize("executor", ["stacked", "one_by_one"])
def test_per_example_clipping_with_constant_norms_is_exact(kind: str, executor: str) -> None:
    client = {"kind": "dp_sgd", "lr": 1.0, "clip": 0.1, "noise_multiplier": 0.0, "batch_size": 8, "steps": 1}
    scenario = small(kind, client=client, privacy={"delta": 1e-3})
    federation = build(scenario)
    with torch.no_grad():
        for name, value in running_statistics(federation.model).items():
            value.fill_(0.3 if name.endswith("mean") else 0.5)
    from fedmem.training.stacked import Stacked

    maker: Any = Stacked if executor == "stacked" else OneByOne
    task = LocalWork(federation, scenario.client, scenario.seed).task(0, 1, 0, federation.initial)
    (done,) = maker(federation.model, scenario.client, federation.store).train([task])
    batch = task.rows[task.batches[0][task.batches[0] >= 0]]
    total = {name: torch.zeros_like(value) for name, value in federation.initial.items()}
    for row in batch:
        outputs = federation.model(torch.from_numpy(federation.store.inputs[row : row + 1]))
        loss = nn.functional.cross_entropy(outputs, torch.from_numpy(federation.store.targets[row : row + 1]))
        parameters = dict(federation.model.named_parameters())
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        length = float(torch.sqrt(sum((g.double() ** 2).sum() for g in gradients)))  # type: ignore[arg-type]
        for name, gradient in zip(parameters, gradients, strict=True):
            total[name] += min(1.0, 0.1 / (length + 1e-6)) * gradient
    assert len(batch)
    for name, value in federation.initial.items():
        assert torch.allclose(done.outcome.sent[name], value - total[name] / 8, atol=1e-6), name


def test_group_norm_has_groups_as_in_opacus() -> None:
    for channels, groups in ((48, 16), (64, 32), (6, 2), (7, 1)):
        made = apply_norm(nn.Sequential(nn.BatchNorm2d(channels, affine=False)), Norm(kind="to_group"))[0]  # type: ignore[index]
        assert (made.num_groups, made.num_channels, made.affine) == (groups, channels, False)
    shared = nn.BatchNorm2d(4)
    shared.weight.requires_grad_(False)
    made = apply_norm(nn.Sequential(shared, nn.Sequential(shared)), Norm(kind="to_group"))
    assert made[0] is made[1][0]  # type: ignore[index]
    assert (made[0].weight.requires_grad, made[0].bias.requires_grad) == (False, True)  # type: ignore[index]
    alone = apply_norm(nn.BatchNorm1d(8), Norm(kind="to_group"))
    assert isinstance(alone, nn.GroupNorm)
    assert alone.num_groups == 1
    instance = apply_norm(nn.InstanceNorm2d(4, track_running_stats=True), Norm(kind="to_group"))
    assert dict(instance.named_buffers()) == {}
    assert instance(torch.ones(1, 4, 2, 2)).shape == (1, 4, 2, 2)


# --- dropout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [False, True])
def test_dropout_draws_from_a_stream_of_its_own(function: bool, tmp_path: Path) -> None:
    model = {"norm": False, "p": 0.5, "function": function}
    scenario = small(None, model=model, speed={"workers": 1})
    assert build(scenario).mode == TrainingMode(draws=True)
    state = torch.get_rng_state()
    first = saved(scenario, tmp_path / "first")
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    torch.rand(5)
    assert equal(first, saved(scenario, tmp_path / "again"))
    assert not equal(first, saved(small(None, model=model | {"p": 0.4}), tmp_path / "other"))


@pytest.mark.slow
def test_network_that_changes_is_watched_in_evaluation_mode(tmp_path: Path) -> None:
    """Dropout of everything draws nothing; clients train on zeros and nobody watches zeros."""
    scenario = small(None, model={"norm": False, "p": 1.0}, rounds=1, speed={"workers": 1})
    federation = build(scenario)
    assert federation.mode == TrainingMode(changes=True)
    assert not federation.model.training
    rows = torch.from_numpy(federation.store.inputs[:2])
    assert not torch.equal(federation.model(rows)[0], federation.model(rows)[1])
    models = saved(scenario, tmp_path)
    for model in models.values():
        torch.testing.assert_close(model["1.weight"], federation.initial["1.weight"], msg="no gradient comes through")
        assert not torch.allclose(model["out.bias"], federation.initial["out.bias"])
    refused: dict[str, dict[str, Any]] = {
        "model": {"client": {"kind": "dp_sgd", "noise_multiplier": 1.0, "batch_size": 8}},
        "speed.executor": {"speed": {"executor": "stacked"}},
    }
    for field, changes in refused.items():
        with pytest.raises(ComponentError, match="other outputs in training mode") as caught:
            build(small(None, model={"norm": False, "p": 1.0}, **changes))
        assert caught.value.path == field


def test_no_dropout_equals_p_of_zero(tmp_path: Path) -> None:
    one, other = (
        saved(small(None, model={"norm": False, "p": 0.0, "function": function}), tmp_path / str(function))
        for function in (False, True)
    )
    assert equal(one, other)


def test_dropout_follows_the_run_as_batches_do() -> None:
    def sent(run_number: int, **changes: Any) -> Tensor:
        scenario = small(None, model={"norm": False, "p": 0.5}, injections=[], **changes)
        federation = build(scenario)
        settings = client_settings(scenario, federation)
        work = LocalWork(federation, scenario.client, 3, shared_batches=scenario.batches == "shared")
        task = work.task(run_number, 1, 0, federation.initial)
        executor = OneByOne(federation.model, scenario.client, federation.store, settings)
        return executor.train([task])[0].outcome.sent["out.weight"]

    assert torch.equal(sent(0), sent(0))
    assert torch.equal(sent(0, batches="shared"), sent(1, batches="shared"))
    assert torch.equal(sent(0), sent(0, batches="shared"))


def test_dropout_has_other_draws_in_each_place() -> None:
    """With one batch of all rows, and no step, only the draws can make the losses differ."""
    client = {"kind": "sgd", "lr": 1e-12, "epochs": 1, "batch_size": 400}
    scenario = small(None, model={"norm": False, "p": 0.5}, injections=[], client=client)
    federation = build(scenario)
    settings = client_settings(scenario, federation)
    executor = OneByOne(federation.model, scenario.client, federation.store, settings)
    work = LocalWork(federation, scenario.client, 3)
    losses = {
        (run_number, round_number): executor.train([work.task(run_number, round_number, 0, federation.initial)])[0].loss
        for run_number in range(2)
        for round_number in (1, 2)
    }
    assert len(set(losses.values())) == 4
    assert np.ptp(list(losses.values())) > 1e-4


# --- refusals ---------------------------------------------------------------------------------------------------------

PRIVATE: dict[str, Any] = {"kind": "dp_sgd", "clip": 1.0, "noise_multiplier": 1.0, "batch_size": 8}


@pytest.mark.parametrize(
    ("kind", "changes", "path", "text"),
    [
        (None, {}, "model", "norm: {kind: averaged}"),
        ("frozen", {"model": {"norm": False}}, "norm", "the network has none; leave norm out"),
        ("averaged", {"model": {"momentum": None}}, "norm", "Give the layer a momentum"),
        (None, {"model": {"norm": False, "p": 0.5}, "speed": {"executor": "stacked"}}, "speed.executor", "one_by_one"),
        (None, {"model": {"norm": False, "p": 0.5}, "speed": {"device": "cuda"}}, "speed.device", "device: cpu"),
        (
            "frozen",
            {"model": {"p": 0.5}, "client": PRIVATE, "privacy": {"delta": 1e-3}},
            "model",
            "clips the gradient of each example",
        ),
    ],
)
def test_what_only_the_network_can_tell_is_refused(
    kind: str | None, changes: dict[str, Any], path: str, text: str
) -> None:
    (problem,) = check(small(kind, **changes))
    assert problem.path == path
    assert text in problem.message


@pytest.mark.parametrize("central", [None, "shuffled", "by_client"])
def test_a_batch_of_one_example_is_announced(central: str | None) -> None:
    more: Any = {} if central is None else {"central": central}

    def warnings(width: int, kind: str = "averaged") -> tuple[str, ...]:
        return build(small(kind, client={"kind": "sgd", "batch_size": width}, **more)).warnings

    # 69 and 68 rows at the clients
    single, none = (136, 135) if central == "shuffled" else (68, 60)
    (warning,) = warnings(single)
    assert "have a batch of one example" in warning
    assert not warnings(none)
    assert not warnings(single, "frozen")


def test_a_step_on_a_single_example_goes_nowhere() -> None:
    federation = build(small())
    executor = OneByOne(federation.model, small().client, federation.store, client_settings(small(), federation))
    task = LocalWork(federation, small().client, 3).task(0, 1, 0, federation.initial)
    (done,) = executor.train([replace(task, batches=np.array([[0, -1]]))])
    assert np.isnan(done.loss)
    assert all(torch.equal(value, federation.initial[name]) for name, value in done.outcome.sent.items())
    (other,) = executor.train([replace(task, batches=np.array([[0, -1], [0, 1]]))])
    assert not torch.equal(other.outcome.sent["norm.running_mean"], federation.initial["norm.running_mean"])
