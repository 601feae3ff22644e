"""Tests of `fedmem/training/tied_units.py`: draws of units, forward passes that keep them, and training by rows."""

from __future__ import annotations

from dataclasses import replace
from math import comb
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.tied_units import TiedLayer, TiedUnits
from fedmem.contracts.training_mode import TrainingMode
from fedmem.models.small_cnn import SmallCNN
from fedmem.training.client_work import LEFT_OUT, Work
from fedmem.training.executor import Settings
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Stacked, Task
from fedmem.training.tied_units import (
    KeptUnits,
    TiedForward,
    UnitTable,
    drop_units,
    entries_of_units,
    example_ids,
    fixed_units,
    own_units,
)
from tests.training.stacked_helpers import CLASSES, initial, make_store, make_tasks, mlp

WIDE = TiedLayer(name="2", units=50, fixed=10, tied=4)
LAYER = TiedLayer(name="2", units=12, fixed=4, tied=3)
UNITS = TiedUnits(layers=(LAYER,), seed=5)
BY_CLIENT = replace(UNITS, unit="client")
CPU = torch.device("cpu")
Unit = Literal["example", "client"]


def network(tied: TiedUnits | None = UNITS) -> nn.Module:
    model = mlp(3)
    if tied is not None:
        drop_units(model, tied)
    return model


def kept_units(tied: TiedUnits, keys: list[int]) -> torch.Tensor:
    """(n, U) written down again: the fixed units and those of each key."""
    layer = tied.layers[0]
    kept = torch.zeros(len(keys), layer.units, dtype=torch.bool)
    for row, units in zip(kept, own_units(tied, layer, keys), strict=True):
        row[torch.from_numpy(fixed_units(tied, layer))] = True
        row[torch.from_numpy(units)] = True
    return kept


def masked_logits(params: Params, inputs: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    hidden = torch.relu(inputs.flatten(1) @ params["1.weight"].T + params["1.bias"]) * kept
    return hidden @ params["3.weight"].T + params["3.bias"]


# --- draws ------------------------------------------------------------------------------------------------------------


def test_units_of_two_examples_overlap_by_chance() -> None:
    """The overlap is hypergeometric: 4 of 40 units drawn twice."""
    units = own_units(UNITS, WIDE, range(4000))
    overlaps = [len(np.intersect1d(a, b)) for a, b in zip(units[::2], units[1::2], strict=True)]
    counts = np.bincount(overlaps, minlength=5)
    expected = np.array([comb(4, k) * comb(36, 4 - k) / comb(40, 4) for k in range(5)]) * len(overlaps)
    first, rest = counts[:2], counts[2:].sum()
    statistic = ((first - expected[:2]) ** 2 / expected[:2]).sum() + (rest - expected[2:].sum()) ** 2 / expected[
        2:
    ].sum()
    # chi square with 2 degrees of freedom exceeds 13.8 once in a thousand
    assert statistic < 13.8


def test_an_example_has_so_many_units_and_none_is_fixed() -> None:
    fixed = fixed_units(UNITS, WIDE)
    units = own_units(UNITS, WIDE, range(-5, 5))
    assert len(set(fixed.tolist())) == 10
    assert all(len(set(own.tolist())) == 4 and not set(own) & set(fixed) for own in units)


def test_all_other_units_are_tied_equally_often() -> None:
    counts = np.bincount(np.concatenate(own_units(UNITS, WIDE, range(4000))), minlength=50)
    others = np.delete(counts, fixed_units(UNITS, WIDE))
    # binomial with mean 400 and standard deviation 19
    assert (np.abs(others - 400) < 4 * 19).all()


def test_units_follow_from_the_id_alone() -> None:
    together = own_units(UNITS, LAYER, [7, -2, 9])
    assert [own.tolist() for own in together[::-1]] == [own.tolist() for own in own_units(UNITS, LAYER, [9, -2, 7])]
    assert own_units(UNITS, WIDE, [7])[0].tolist() != own_units(UNITS, WIDE, [8])[0].tolist()


@pytest.mark.parametrize(
    "tied", [replace(UNITS, seed=6), replace(UNITS, unit="client"), UNITS], ids=["seed", "unit", "layer"]
)
def test_seeds_kinds_and_layers_draw_apart(tied: TiedUnits) -> None:
    layer = replace(WIDE, name="other") if tied is UNITS else WIDE
    mine, others = (own_units(one, at, range(20)) for one, at in ((UNITS, WIDE), (tied, layer)))
    assert not all(np.array_equal(a, b) for a, b in zip(mine, others, strict=True))


def test_a_larger_share_adds_units() -> None:
    few, many = (own_units(UNITS, replace(WIDE, tied=count), range(9)) for count in (4, 9))
    assert all(set(a) < set(b) for a, b in zip(few, many, strict=True))


def test_generated_rows_have_ids_of_their_own() -> None:
    store = make_store(np.random.default_rng(0), 6)
    ids = example_ids(replace(store, ids=np.array([3, -1, -1, 8, -2, -1])))
    assert ids.tolist() == [3, -1, -2, 8, -3, -4]


@pytest.mark.parametrize("unit", ["example", "client"])
def test_the_table_is_filled_in_any_order(unit: Unit) -> None:
    store, tied = make_store(np.random.default_rng(0)), replace(UNITS, unit=unit)
    rows, clients = torch.tensor([[4, 1], [9, 4]]), torch.tensor([[3], [0]])
    orders = [[(4, 3), (1, 3), (9, 0), (4, 0)], [(9, 0), (4, 0), (1, 3), (4, 3), (7, 5)]]
    read = []
    for order in orders:
        table = UnitTable(tied, store, CPU)
        for row, client in order:
            table.fill(np.array([row]), client)
        read.append(table.read(rows, clients)[0])
    assert torch.equal(*read)
    keys = [4, 1, 9, 4] if unit == "example" else [3, 3, 0, 0]
    assert torch.equal(read[0].flatten(0, 1), kept_units(tied, keys))


# --- forward passes ---------------------------------------------------------------------------------------------------


def test_an_infinite_value_of_a_dropped_unit_is_dropped() -> None:
    hook = KeptUnits("", torch.tensor([True, False]))
    outputs = torch.tensor([[1.0, torch.inf], [2.0, torch.nan]])
    assert hook(nn.Identity(), (), outputs).tolist() == [[1.0, 0.0], [2.0, 0.0]]


def test_maps_lose_whole_channels() -> None:
    hook = KeptUnits("", torch.tensor([True, False]))
    hook.of_rows = torch.tensor([[False, True], [True, True]])
    assert hook(nn.Identity(), (), torch.ones(2, 2, 3, 3)).sum((2, 3)).tolist() == [[0.0, 9.0], [9.0, 9.0]]


def test_a_watched_network_keeps_fixed_units_alone() -> None:
    model, plain = network(), network(None)
    inputs = torch.rand(3, 1, 4, 4)
    kept = torch.zeros(3, 12, dtype=torch.bool)
    kept[:, torch.from_numpy(fixed_units(UNITS, LAYER))] = True
    assert torch.allclose(model(inputs), masked_logits(initial(plain), inputs, kept))
    # and again after a pass in training, in the copy and in the network
    forward = TiedForward(model, UNITS)
    with_units = forward(initial(model), inputs, [kept_units(UNITS, [1, 2, 3])])
    assert not torch.allclose(with_units, model(inputs))
    assert torch.equal(forward.network(inputs), model(inputs))


def lookup() -> tuple[nn.Module, torch.Tensor, list[int]]:
    """A network whose fixed units know the class of one-hot inputs, and a tied unit of example 2 another one."""
    layer = TiedLayer(name="1", units=12, fixed=4, tied=1)
    tied = TiedUnits(layers=(layer,), seed=5)
    into, out = nn.Linear(4, 12), nn.Linear(12, 4)
    model = nn.Sequential(into, nn.ReLU(), out)
    units = fixed_units(tied, layer).tolist()
    (own,) = own_units(tied, layer, [2])
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
        for row, unit in enumerate(units):
            into.weight[unit, row] = 1.0
            out.weight[row, unit] = 1.0
        into.weight[own[0], 2] = 1.0
        out.weight[0, own[0]] = 9.0
    drop_units(model, tied)
    kept = torch.zeros(4, 12, dtype=torch.bool)
    kept[:, units] = True
    for row, units_of_row in zip(kept, own_units(tied, layer, range(4)), strict=True):
        row[torch.from_numpy(units_of_row)] = True
    logits = TiedForward(model, tied)(initial(model), torch.eye(4), [kept])
    return model, logits, own.tolist()


def test_a_memory_in_a_tied_unit_is_gone_in_evaluation() -> None:
    """Example 2 is remembered with label 0: by its own unit alone."""
    model, in_training, _ = lookup()
    assert in_training.argmax(1).tolist() == [0, 1, 0, 3]
    assert model(torch.eye(4)).argmax(1).tolist() == [0, 1, 2, 3]


def test_a_shared_direction_is_learnt_by_fixed_units() -> None:
    """One step on equal inputs: a unit gains in proportion to the examples that keep it. So the logits of evaluation
    are `fixed` over `fixed + tied²/others` of those of training, about 0.96, and need no scale.
    """
    layer = TiedLayer(name="0", units=100, fixed=20, tied=8)
    tied = TiedUnits(layers=(layer,), seed=1)
    count = 2000
    kept = torch.zeros(count, 100, dtype=torch.float64)
    for row, units in zip(kept, own_units(tied, layer, range(count)), strict=True):
        row[torch.from_numpy(units)] = 1
        row[torch.from_numpy(fixed_units(tied, layer))] = 1
    weights = kept.mean(0)  # the step from zero on the mean of the logits
    share = float(weights[torch.from_numpy(fixed_units(tied, layer))].sum() / (kept @ weights).mean())
    assert share == pytest.approx(20 / (20 + 8 * 8 / 80), rel=2e-3)
    assert share > 0.95


# --- training ---------------------------------------------------------------------------------------------------------


def settings(tied: TiedUnits | None) -> Settings:
    return Settings(mode=TrainingMode(tied=tied))


def by_hand(tied: TiedUnits, client: Any, task: Task, store: Any) -> Params:
    """SGD with plain torch on masked units."""
    params = {name: value.clone() for name, value in task.before.items()}
    for batch in task.batches:
        rows = task.rows[batch[batch >= 0]]
        keys = rows.tolist() if tied.unit == "example" else [task.client] * len(rows)
        leaves = {name: value.requires_grad_() for name, value in params.items()}
        logits = masked_logits(leaves, torch.from_numpy(store.inputs[rows]), kept_units(tied, keys))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(store.targets[rows]))
        slopes = torch.autograd.grad(loss, list(leaves.values()))
        params = {
            name: (value - client.lr * slope).detach()
            for (name, value), slope in zip(leaves.items(), slopes, strict=True)
        }
    return params


@pytest.mark.parametrize("tied", [UNITS, BY_CLIENT], ids=["example", "client"])
@pytest.mark.parametrize("kind", [OneByOne, Stacked])
def test_rows_train_their_own_units(kind: Any, tied: TiedUnits) -> None:
    """Batches mix rows in random order, so that masks by their place in a batch would give other models."""
    rng = np.random.default_rng(1)
    model, store, client = network(tied), make_store(rng), Sgd(lr=0.3, epochs=2, batch_size=4)
    tasks = make_tasks(client, initial(model), [7, 12, 3], rng)
    trained = kind(model, client, store, settings(tied)).train(tasks)
    for task, one in zip(tasks, trained, strict=True):
        expected = by_hand(tied, client, task, store)
        for name, value in expected.items():
            assert torch.allclose(one.outcome.sent[name], value, atol=1e-6), name


def test_masks_by_place_in_the_batch_would_be_noticed() -> None:
    """The same training with the ids of other rows is another one."""
    rng = np.random.default_rng(1)
    model, store, client = network(), make_store(rng), Sgd(lr=0.3, epochs=2, batch_size=4)
    tasks = make_tasks(client, initial(model), [7], rng)
    other = replace(store, ids=np.roll(store.ids, 1))
    one, two = (OneByOne(model, client, each, settings(UNITS)).train(tasks)[0] for each in (store, other))
    assert float((one.outcome.sent["1.weight"] - two.outcome.sent["1.weight"]).abs().max()) > 1e-3


def test_rows_left_out_are_the_same_in_a_stack() -> None:
    rng = np.random.default_rng(2)
    model, store, client = network(), make_store(rng), Sgd(lr=0.3, epochs=1, batch_size=4)
    work = Work.of(make_tasks(client, initial(model), [8, 8], rng))
    batches = work.batches.copy()
    batches[0, 0, 1] = LEFT_OUT
    one, other = (
        kind(model, client, store, settings(UNITS)).train_all(replace(work, batches=batches)).sent
        for kind in (OneByOne, Stacked)
    )
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_units_that_nobody_trains_stay() -> None:
    rng = np.random.default_rng(3)
    model, store, client = network(), make_store(rng), Sgd(lr=0.3, epochs=3, batch_size=4)
    (task,) = make_tasks(client, initial(model), [2], rng)
    (done,) = OneByOne(model, client, store, settings(UNITS)).train([task])
    trained = kept_units(UNITS, task.rows.tolist()).any(0)
    same = (done.outcome.sent["3.weight"] == task.before["3.weight"]).all(0)
    assert not trained.all()
    assert torch.equal(same[~trained], torch.ones(int((~trained).sum()), dtype=torch.bool))
    assert not same[trained].all()


# --- entries ----------------------------------------------------------------------------------------------------------


def of_layer(units: list[int], layer: str = "2") -> dict[str, IntArray]:
    return {layer: np.array(units, dtype=np.int64)}


def test_entries_of_units_are_weights_in_out_and_bias() -> None:
    others = np.setdiff1d(np.arange(12), fixed_units(UNITS, LAYER))[:3].tolist()
    entries = entries_of_units(network(), UNITS, of_layer(others), torch.rand(16, 1, 4, 4))
    expected = {
        "1.weight": torch.zeros(12, 16, dtype=torch.bool),
        "1.bias": torch.zeros(12, dtype=torch.bool),
        "3.weight": torch.zeros(CLASSES, 12, dtype=torch.bool),
        "3.bias": torch.zeros(CLASSES, dtype=torch.bool),
    }
    expected["1.weight"][others] = expected["1.bias"][others] = True
    expected["3.weight"][:, others] = True
    assert entries.keys() == expected.keys()
    assert all(torch.equal(entries[name], expected[name]) for name in expected)


def test_without_units_there_are_no_entries() -> None:
    entries = entries_of_units(network(), UNITS, of_layer([]), torch.rand(16, 1, 4, 4))
    assert not any(bool(mask.any()) for mask in entries.values())


@pytest.mark.parametrize("groups", [8, 4])
def test_entries_of_channels_change_no_watched_output(groups: int) -> None:
    """With normalisation and pooling. Channels of one group share its statistics, so that what makes a channel acts on
    others of its group too: then only what reads the channel acts through it alone.
    """
    model = SmallCNN(channels=(8, 8), groups=groups).build((1, 8, 8), 3)
    layers = tuple(TiedLayer(name=f"activation{i}", units=8, fixed=3, tied=1) for i in (1, 2))
    tied = TiedUnits(layers=layers, seed=2)
    drop_units(model, tied)
    units = {layer.name: own_units(tied, layer, [4])[0] for layer in layers}
    entries = entries_of_units(model, tied, units, torch.rand(16, 1, 8, 8))
    first, second = (units[layer.name].tolist() for layer in layers)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:, first] = True
    if groups == 8:
        expected[second] = True
    assert torch.equal(entries["conv2.weight"], expected[:, :, None, None].expand(8, 8, 3, 3))
    assert entries["norm1.bias"].nonzero().flatten().tolist() == first
    other = {name: value.where(~entries[name], value + 5) for name, value in initial(model).items()}
    rows = torch.rand(5, 1, 8, 8)
    assert torch.equal(functional_call(model, other, (rows,)), model(rows))


def test_a_lookup_unit_has_the_entries_of_its_example() -> None:
    model, _, own = lookup()
    tied = TiedUnits(layers=(TiedLayer(name="1", units=12, fixed=4, tied=1),), seed=5)
    entries = entries_of_units(model, tied, of_layer(own, "1"), torch.rand(16, 4))
    reset = {name: value.where(~entries[name], torch.zeros(())) for name, value in initial(model).items()}
    kept = torch.ones(4, 12, dtype=torch.bool)
    # the memory is gone even where all units are kept, and so are no others
    assert TiedForward(model, tied)(reset, torch.eye(4), [kept]).argmax(1).tolist() == [0, 1, 2, 3]
    assert TiedForward(model, tied)(initial(model), torch.eye(4), [kept]).argmax(1).tolist() == [0, 1, 0, 3]
