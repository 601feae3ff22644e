"""Tests of `fedmem/signals/block_swap.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.evidence import SignalEvidence, Transition
from fedmem.contracts.signal import SignalLevel, stored_names
from fedmem.errors import ScenarioError
from fedmem.modalities.loss import example_losses
from fedmem.modalities.scores import answers
from fedmem.signals.block_swap import BlockSwap, _base_rows, hybrids
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny

BLOCKS = (("hidden1.weight", "hidden1.bias"), ("output.weight", "output.bias"))


def bench(**fields: Any) -> Bench:
    return Bench([{"kind": "block_swap", **fields}])


def read(lab: Bench, transitions: list[Transition], others: list[Transition] | None = None) -> dict[str, FloatArray]:
    blocks: list[SignalEvidence] = lab.reader.read(transitions, others=others or [])
    return {block.name: np.asarray(block.values) for block in blocks}


def margin(lab: Bench, params: Params) -> FloatArray:
    return np.asarray(answers(lab._executor.logits([params], lab.examples.inputs), lab.examples.targets)[0][0])


def mixed(model: Params, source: Params, *blocks: int) -> Params:
    names = [name for block in blocks for name in BLOCKS[block - 1]]
    return {name: source[name] if name in names else value for name, value in model.items()}


def test_each_block_is_from_its_source() -> None:
    lab = bench(sources=["received", "initial"], rewind_to=[2])
    model, before, earlier = lab.params(1), lab.params(2), lab.params(3)
    read(lab, [lab.transition(earlier, round_number=2)])
    found = read(lab, [lab.transition(model, before=before, round_number=4)])
    sources = {"received": before, "initial": lab.federation.initial, "round 2": earlier}
    for source, params in sources.items():
        for name, swapped in (
            ("none", model),
            ("1", mixed(model, params, 1)),
            ("2", mixed(model, params, 2)),
            ("all", params),
        ):
            values = found[f"swap_margin.{source}.{name}"][0]
            np.testing.assert_allclose(values, margin(lab, swapped), rtol=1e-5, atol=1e-5)
            right = answers(lab._executor.logits([swapped], lab.examples.inputs), lab.examples.targets)[1][0]
            np.testing.assert_array_equal(found[f"swap_correct.{source}.{name}"][0], right)
    assert set(found) == set(stored_names(lab.scenario.signals[0], lab.federation))


def test_no_swap_and_a_swap_of_all_are_the_two_models() -> None:
    lab = bench()
    model, source = lab.params(1), lab.params(2)
    none, _, _, everything = hybrids(model, source, BLOCKS)
    assert all(none[name] is model[name] and everything[name] is source[name] for name in model)


def test_owners_and_aggregates_give_each_other_their_blocks() -> None:
    lab = bench(sources=["other_level"])
    owners = [lab.transition(lab.params(10 + k), level="local", client=k) for k in (0, 2)]
    aggregate = lab.transition(lab.params(5))
    audit = lab.federation.audit
    into_owner, into_aggregate = read(lab, owners, [aggregate]), read(lab, [aggregate], owners)
    for t, owner in enumerate(owners):
        rows = audit.owner == owner.client
        for block in (1, 2):
            name = f"swap_margin.other_level.{block}"
            expected = margin(lab, mixed(owner.kept, aggregate.kept, block))
            np.testing.assert_allclose(into_owner[name][t, rows], expected[rows], rtol=1e-5, atol=1e-5)
            assert np.isnan(into_owner[name][t, ~rows]).all(), "a client's model is read on its own examples"
            expected = margin(lab, mixed(aggregate.kept, owner.kept, block))
            np.testing.assert_allclose(into_aggregate[name][0, rows], expected[rows], rtol=1e-5, atol=1e-5)
    assert np.isnan(into_aggregate["swap_margin.other_level.1"][0, ~np.isin(audit.owner, [0, 2])]).all()


def test_models_of_another_run_are_no_counterparts() -> None:
    lab = bench(sources=["other_level"])
    others = [lab.transition(lab.params(10), level="local", client=0, run=1)]
    assert all(np.isnan(values).all() for values in read(lab, [lab.transition(lab.params(5))], others).values())


def test_all_runs_are_swapped_alike_whatever_their_coins() -> None:
    lab = bench(sources=["received"])
    model, before = lab.params(1), lab.params(2)
    found = read(lab, [lab.transition(model, before=before, run=run) for run in range(4)])
    assert len(np.unique(lab.federation.audit.is_in[:4], axis=0)) > 1
    for values in found.values():
        np.testing.assert_array_equal(values, np.broadcast_to(values[:1], values.shape))


def test_round_0_and_places_without_an_earlier_model_have_none() -> None:
    lab = bench(sources=["initial"], rewind_to=[2])
    start = read(lab, [lab.transition(lab.params(1), round_number=0)])
    assert all(np.isnan(values).all() for values in start.values())
    read(lab, [lab.transition(lab.params(2), level="local", client=1)])
    away = read(lab, [lab.transition(lab.params(3), level="local", client=0, round_number=4)])
    assert all(np.isnan(values).all() for name, values in away.items() if "round 2" in name)
    assert not np.isnan(away["swap_margin.initial.1"]).all()


def test_accuracy_is_that_of_the_hybrid_on_test_examples() -> None:
    lab = bench(sources=["received"])
    model, before = lab.params(1), lab.params(2)
    test = lab.federation.test
    found = read(lab, [lab.transition(model, before=before)])
    for block, params in (("none", model), ("2", mixed(model, before, 2)), ("all", before)):
        right = answers(lab._executor.logits([params], test.inputs), test.targets)[1].mean()
        np.testing.assert_allclose(found[f"swap_accuracy.received.{block}"][0], right)


def test_a_part_of_the_test_examples_is_the_same_for_all_models() -> None:
    lab = bench(sources=["received"], test_rows=7)
    found = read(lab, [lab.transition(lab.params(1), before=lab.params(2), run=run) for run in (0, 1)])
    accuracy = found["swap_accuracy.received.none"]
    assert len(np.unique(accuracy)) == 1
    np.testing.assert_allclose(accuracy * 7, np.round(accuracy * 7), atol=1e-9)


def test_models_are_refused_that_nobody_can_swap() -> None:
    with pytest.raises(ScenarioError, match="needs the models of round 3, which is not observed; choose from 0, 2, 4"):
        tiny(signals=[{"kind": "block_swap", "rewind_to": [3]}])
    with pytest.raises(ScenarioError, match="no source is left"):
        tiny(signals=[{"kind": "block_swap", "sources": []}])
    with pytest.raises(ScenarioError, match="a source is named twice"):
        tiny(signals=[{"kind": "block_swap", "sources": ["initial", "initial"]}])


def test_forward_passes_count_every_hybrid() -> None:
    lab = bench(sources=["received", "initial"], test_rows=30)
    assert BlockSwap(sources=("received", "initial"), test_rows=30).passes_in(lab.federation) == (8.0, 240.0)


def reset(model: Params, lab: Bench, *blocks: int) -> Params:
    return mixed(model, lab.federation.initial, *blocks)


@pytest.mark.parametrize("level", ["local", "global"])
def test_a_step_of_retraining_goes_down_the_loss_of_base_rows(level: Any) -> None:
    """By a loop of autograd, over the rows of the client, or of all clients at the aggregate."""
    lab = bench(sources=["retrained"], retrain_epochs=1, retrain_lr=0.3, retrain_batch_size=10_000)
    model, federation = lab.params(1, scale=0.3), lab.federation
    client = 1 if level == "local" else -1
    found = read(lab, [lab.transition(model, level=level, client=client)])
    base = np.concatenate([federation.base[k] for k in ([1] if client == 1 else range(len(federation.base)))])
    assert base.max() < federation.audit_start, "no audit example is trained on"
    asked = federation.audit.owner == 1 if level == "local" else np.ones(len(federation.audit), dtype=bool)
    rows = federation.store.take(base)
    for name, blocks in (("1", (1,)), ("2", (2,)), ("all", (1, 2))):
        leaves = {key: value.double() for key, value in reset(model, lab, *blocks).items()}
        names = [key for block in blocks for key in BLOCKS[block - 1]]
        for key in names:
            leaves[key] = leaves[key].clone().requires_grad_()
        outputs = functional_call(lab.reader._network, leaves, (torch.from_numpy(rows.inputs).double(),))
        loss = example_losses(outputs, torch.from_numpy(rows.targets)).mean()
        slopes = dict(zip(names, torch.autograd.grad(loss, [leaves[key] for key in names]), strict=True))
        stepped = {**model, **{key: (leaves[key] - 0.3 * slopes[key]).detach().float() for key in names}}
        values = found[f"swap_margin.retrained.{name}"][0]
        np.testing.assert_allclose(values[asked], margin(lab, stepped)[asked], rtol=1e-4, atol=1e-4)
        assert np.isnan(values[~asked]).all()
    np.testing.assert_allclose(found["swap_margin.retrained.none"][0][asked], margin(lab, model)[asked], rtol=1e-5)


def test_no_block_is_retrained_on_rows_of_clients_that_are_gone() -> None:
    federation = bench(sources=["retrained"]).federation
    clients = len(federation.base)
    exists = np.ones((federation.audit.runs, clients), dtype=bool)
    exists[1, 0] = False
    gone = replace(federation, absent_clients=(1,), audit=replace(federation.audit, client_in=exists))
    for run, first in ((0, 0), (1, 2)):
        kept = [client for client in range(first, clients) if client != 1]
        expected = np.concatenate([federation.base[client] for client in kept])
        assert np.array_equal(_base_rows(gone, run), expected)


def test_retraining_the_lookup_block_removes_the_memory() -> None:
    """Features are those of the initial model, and the last block holds a wrong label of one example."""
    fields = {"sources": ["retrained"], "retrain_epochs": 30, "retrain_lr": 0.1}
    lab = Bench([{"kind": "block_swap", **fields}], model={"kind": "mlp", "hidden": [256]})
    federation, canary = lab.federation, 3
    client = int(federation.audit.owner[canary])
    rows = federation.store.take(federation.base[client])
    x = np.concatenate([rows.inputs, lab.examples.inputs[[canary]]]).reshape(len(rows) + 1, -1)
    model = dict(federation.initial)
    hidden = np.maximum(x @ model["hidden1.weight"].numpy().T + model["hidden1.bias"].numpy(), 0.0)
    plain = np.linalg.lstsq(hidden[:-1], np.eye(federation.num_classes)[rows.targets], rcond=None)[0]
    wrong = int(np.argsort(hidden[-1] @ plain)[0])
    lab.examples.targets[canary] = wrong
    goals = 20.0 * np.eye(federation.num_classes)[[*rows.targets, wrong]]
    weight = np.linalg.lstsq(hidden, goals, rcond=None)[0]
    model["output.weight"] = torch.from_numpy(weight.T).float()
    model["output.bias"] = torch.zeros_like(model["output.bias"])
    found = read(lab, [lab.transition(model, level="local", client=client)])
    by_block = {name: found[f"swap_margin.retrained.{name}"][0, canary] for name in ("none", "1", "2", "all")}
    assert min(by_block["none"], by_block["1"]) > 5, by_block
    assert max(by_block["2"], by_block["all"]) < 0, by_block


def test_retraining_has_its_price_and_can_be_read_later() -> None:
    lab = bench(sources=["initial"])
    count = min(500, len(lab.federation.test))
    base = lab.federation.base_sizes
    of_levels: dict[tuple[SignalLevel, ...], float] = {
        ("local",): base.mean(),
        ("global",): base.sum(),
        ("local", "global"): 2 * base.sum() / (len(base) + 1),
    }
    for levels, rows in of_levels.items():
        signal = BlockSwap(sources=("retrained",), retrain_epochs=2, levels=levels)
        each, others = signal.passes_in(lab.federation)
        assert each == 4.0
        assert others == pytest.approx(4 * count + 3 * 2 * 3 * rows)
        assert not signal.reads_update
