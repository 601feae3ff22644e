"""Tests of `fedmem/signals/prediction_depth.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import fedmem
from fedmem.contracts.arrays import FloatArray
from fedmem.errors import ScenarioError
from fedmem.execution.plan import plan
from fedmem.federation import build as federations
from fedmem.models.mlp import MLP
from fedmem.signals._support import own_rows
from fedmem.signals.prediction_depth import PredictionDepth, depths
from fedmem.training.blocks import features_of, hidden_blocks
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny

DEEP = {"kind": "mlp", "hidden": [8, 8]}


def depth_of(
    params: dict[str, Tensor], x: FloatArray, y: FloatArray, support: FloatArray, hidden: tuple[int, ...]
) -> FloatArray:
    """The depths of rows x in a network with these parameters, with a labelled support."""
    network = MLP(hidden=hidden).build((x.shape[1],), 2).double()
    both = torch.from_numpy(np.concatenate([x, support]))
    parts, logits = features_of(network, params, both, hidden_blocks(network, both[:1]))
    probes = [(part[: len(x)], part[len(x) :]) for part in (both, *parts, logits)]
    return depths(probes, y.astype(int), np.zeros((len(x), len(support)), dtype=bool), 12)


def identity(width: int, layers: int) -> dict[str, Tensor]:
    names = [f"hidden{i + 1}" for i in range(layers)] + ["output"]
    params = {f"{name}.weight": torch.eye(width).double() for name in names}
    return params | {f"{name}.bias": torch.zeros(width).double() for name in names}


def blobs(count: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Points near (9, 1) of class 0 and near (1, 9) of class 1."""
    y = np.arange(count) % 2
    return np.where(y[:, None] == np.array([0, 1]), 9.0, 1.0) + rng.normal(0, 0.3, (count, 2)), y.astype(float)


def test_separable_blobs_through_identity_layers_have_depth_0() -> None:
    rng = np.random.default_rng(0)
    support, y = blobs(60, rng)
    x, _ = blobs(20, rng)
    assert (depth_of(identity(2, 2), x, y, support, (2, 2)) == 0).all()


def test_xor_that_the_second_block_computes_has_depth_2() -> None:
    """Inputs (a, b, group): groups are far apart, and in each most of the others have the other label."""
    rows = []
    for group in range(8):
        a, b = group % 2, group // 2 % 2
        rows += [(a, b, 40.0 * group + 0.1 * i, a ^ b) for i in range(3)]
        rows += [(a, 1 - b, 40.0 * group + 0.1 * i, 1 - (a ^ b)) for i in range(12)]
    table = np.array(rows)
    is_rare = np.tile(np.arange(15) < 3, 8)
    params = {
        # (relu(a + b), relu(a + b − 1), group), then (XOR, 1 − XOR)
        "hidden1.weight": torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]),
        "hidden1.bias": torch.tensor([0.0, -1, 0]),
        "hidden2.weight": torch.tensor([[1.0, -2, 0], [-1, 2, 0], [0, 0, 0]]),
        "hidden2.bias": torch.tensor([0.0, 1, 0]),
        "output.weight": torch.tensor([[-1.0, 1, 0], [1, -1, 0]]),
        "output.bias": torch.tensor([0.0, 0]),
    }
    params = {name: value.double() for name, value in params.items()}
    support = table[~is_rare]
    found = depth_of(params, table[is_rare, :3], support[:, 3], support[:, :3], (3, 3))
    assert (found == 2).all()


def test_a_point_deep_in_another_class_never_agrees() -> None:
    """The network predicts class 1 at one point of blob 0 alone, by its logits; its neighbours there disagree."""
    rng = np.random.default_rng(0)
    support, y = blobs(60, rng)
    params = identity(2, 2)
    params["output.weight"] = torch.tensor([[-1.0, 0], [0, 1]]).double()
    params["output.bias"] = torch.tensor([9.0, 0]).double()
    # logits (9 − x, y): the point (9.4, 1.4) is predicted as class 1, and its neighbours have label 0
    x = np.array([[9.4, 1.4]])
    assert depth_of(params, x, y, support, (2, 2)).tolist() == [4.0]


def test_ties_are_disagreement_whatever_the_class() -> None:
    line = torch.tensor([[0.0], [2.0], [-2.0], [50.0], [60.0], [70.0]]).double()
    labels = np.array([0, 0, 1, 0, 1, 1])
    nobody = np.zeros((1, 5), dtype=bool)
    for predicted in (0, 1):
        logits = torch.eye(2).double()[predicted][None]
        probe = (line[:1], line[1:])
        # one of each class at the same distance
        assert depths([probe, (logits, torch.eye(2).double()[labels[1:]])], labels[1:], nobody, 1).tolist() == [1.0]


def test_no_row_is_its_own_neighbour() -> None:
    copies = [{"kind": "mislabelled", "per_client": 2, "copies": 3}]
    bench = Bench(model=DEEP, injections=copies)
    federation, run = bench.federation, 0
    client = int(federation.audit.owner[0])
    rows = federation.rows(run, client, 1)
    own = own_rows(bench.context(bench.transition(bench.params())), rows)
    is_trained = federation.audit.is_in[run] & (federation.audit.owner == client)
    assert is_trained.any()
    assert (own.sum(axis=1) == 3 * is_trained).all()
    # an example that is its own only supporter: without its copies it has none
    x = torch.zeros(1, 1).double()
    support = torch.tensor([[0.0], [1.0], [1.0], [1.0]]).double()
    labels, logits = np.array([1, 0, 0, 0]), torch.tensor([[0.0, 1.0]]).double()
    probes = [(x, support), (logits, torch.tensor([[0.0, 1.0], [1, 0], [1, 0], [1, 0]]).double())]
    assert depths(probes, labels, np.array([[True, False, False, False]]), 1).tolist() == [2.0]
    assert depths(probes, labels, np.zeros((1, 4), dtype=bool), 1).tolist() == [0.0]


def test_changed_copies_are_no_neighbours() -> None:
    near = [{"kind": "near_duplicate", "per_client": 2}]
    bench = Bench(model=DEEP, injections=near)
    federation = bench.federation
    client = int(federation.audit.owner[0])
    run = int(np.flatnonzero(federation.audit.is_in[:, 0])[0])
    own = own_rows(bench.context(bench.transition(bench.params())), federation.rows(run, client, 1))
    rows = federation.rows(run, client, 1)[own[0]]
    assert len(rows) == federation.audit.copies[0]
    assert (federation.store.inputs[rows] != federation.audit.examples.inputs[0]).any()


def test_a_run_reads_both_supports_at_both_levels() -> None:
    bench = Bench(model=DEEP)
    for support in ("clients", "population"):
        owner = int(bench.federation.audit.owner[0])
        context = bench.context(bench.transition(bench.params(), level="local", client=owner))
        found = PredictionDepth(support=support).values(context)["prediction_depth"]
        assert (np.isfinite(found[0]) == (bench.federation.audit.owner == owner)).all()
        found = bench.values(PredictionDepth(support=support), bench.params())["prediction_depth"]
        assert ((found >= 0) & (found <= 4)).all()


def test_rows_of_a_large_support_do_not_depend_on_models_beside() -> None:
    bench = Bench(model=DEEP)
    models = [bench.params(seed) for seed in range(2)]
    signal = PredictionDepth(rows=20)
    both = bench.values(signal, *models)["prediction_depth"]
    np.testing.assert_array_equal(both[1:], bench.values(signal, models[1])["prediction_depth"])


def test_a_diverged_model_has_no_depth() -> None:
    bench = Bench(model=DEEP)
    params = bench.params()
    params["output.bias"][:] = math.nan
    assert np.isnan(bench.values(PredictionDepth(), params)["prediction_depth"]).all()


def test_shallow_networks_no_population_and_texts_are_refused() -> None:
    with pytest.raises(ScenarioError, match="needs 2 hidden blocks or more, but mlp has 1; choose a deeper"):
        federations.build(tiny(model={"kind": "mlp", "hidden": [8]}, signals=[{"kind": "prediction_depth"}]))
    with pytest.raises(ScenarioError, match="population is 0; set population"):
        tiny(model=DEEP, population=0, signals=[{"kind": "prediction_depth", "support": "population"}])
    texts = fedmem.load_scenario("text_quickstart", ["signals=[{kind: prediction_depth}]"])
    with pytest.raises(ScenarioError, match=r"reads inputs as numbers and may move them, but .* has texts"):
        federations.require(texts, federations.load(texts))


def test_its_support_is_in_the_price() -> None:
    passes = [
        plan(
            scenario := tiny(model=DEEP, signals=[{"kind": "prediction_depth", "rows": rows}]),
            federations.build(scenario),
        ).signals.passes
        for rows in (1, 30)
    ]
    assert passes[1] > passes[0]
