"""Tests of `fedmem/attacks/_columns.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.attacks._columns import touched_columns
from fedmem.attacks.tabular import Tabular
from fedmem.modalities.tables import Tables
from tests.attacks.tabular_helpers import BLOCKS, attacked, rows, table_target
from tests.lab import parameters, target_of


@pytest.mark.parametrize("embedded", [True, False])
def test_columns_without_gradient_are_never_in_the_answer(embedded: bool) -> None:
    for seed in range(3):
        table = rows(2, seed)
        table.inputs[:, 4] = 0.0  # a number that everybody has at 0, such as a gain
        target = table_target(table, embedded)
        there = (table.inputs != 0).any(0)
        if embedded:
            # numbers join the categories' embeddings: the layer that reads them is given no columns alone
            there[[0, 4]] = True
        np.testing.assert_array_equal(touched_columns(target), there)
        found = attacked(target, Tabular(steps=5, restarts=2)).inputs
        assert not found[:, ~there].any()
        everything = replace(target, gradient={n: g + 1e-3 for n, g in target.gradient.items()})
        assert touched_columns(everything).all(), "noise leaves no zeros"


def test_layers_that_read_something_else_say_nothing_of_columns() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Sigmoid(), nn.Linear(sum(BLOCKS), 8), nn.ReLU(), nn.Linear(8, 2))
    target = replace(target_of(net, parameters(net), rows(1)), num_classes=2, modality=Tables(blocks=BLOCKS))
    zero = {name: torch.zeros_like(value) for name, value in target.gradient.items()}
    assert touched_columns(replace(target, gradient=zero)).all()
