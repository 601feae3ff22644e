"""Data of a user's own: what a plain function or class may return."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.datasets._own import as_dataset
from fedmem.errors import FedmemError
from fedmem.federation.build import load
from fedmem.scenario.loading import parse_scenario

LOADERS = """
import random
import numpy as np, torch
from dataclasses import dataclass

def draws(rng, rows: int = 40):
    x = np.stack([rng.random(rows), np.random.rand(rows), torch.rand(rows).numpy()], axis=1)
    return x, [random.randrange(2) for _ in range(rows)]

class Loader:
    def __init__(self, rows=30): self.rows = rows
    def load(self): return {"x": np.eye(self.rows), "y": np.arange(self.rows) % 3}

@dataclass(frozen=True, kw_only=True)
class Frozen:
    rows: int = 20
    def load(self, rng): return np.eye(self.rows), np.arange(self.rows) % 2

def nothing(): ...
"""


@pytest.fixture(autouse=True)
def loaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module `own_loaders` in the search path."""
    (tmp_path / "own_loaders.py").write_text(LOADERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_loaders", None)


def loaded(kind: str, seed: int = 0, **fields: int) -> Any:
    """The data of a scenario with this loader."""
    extra = "".join(f", {name}: {value}" for name, value in fields.items())
    text = (
        f"{{rounds: 1, clients: 2, seed: {seed}, dataset: {{kind: 'own_loaders:{kind}'{extra}}}, model: {{kind: mlp}}}}"
    )
    return load(parse_scenario(text))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_all_draws_of_a_loader_follow_the_seed() -> None:
    before = random.getstate()
    one = loaded("draws")
    assert random.getstate() == before
    torch.manual_seed(3)
    again, other = loaded("draws"), loaded("draws", seed=1)
    assert np.array_equal(one.train.inputs, again.train.inputs)
    assert np.array_equal(one.train.targets, again.train.targets)
    assert not (one.train.inputs[:, :3] == other.train.inputs[:, :3]).any()


def test_classes_and_dataclasses_may_return_arrays() -> None:
    assert len(loaded("Loader", rows=60).train) == 48
    assert loaded("Frozen").num_classes == 2


def test_what_is_no_data_is_refused_with_what_is_expected() -> None:
    with pytest.raises(
        FedmemError, match=r"it returned nothing. It should be a mapping of arrays.*own_loaders\.py:\d+"
    ):
        loaded("nothing")


def test_arrays_by_name_give_owners_and_named_classes() -> None:
    y = np.array(["cat", "dog"] * 10, dtype=object)
    data = as_dataset({"x": np.eye(20), "y": y, "clients": np.array(["a", "b", "b", "a"] * 5)}, rng())
    assert data.class_names == ("cat", "dog")
    assert data.client_names == ("a", "b")
    position = int(data.train.ids[3])
    assert data.class_names[data.train.targets[3]] == y[position]
    assert data.client_names[data.natural[3]] == ["a", "b", "b", "a"][position % 4]


def test_given_test_rows_are_the_test_rows() -> None:
    x, y = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    data = as_dataset((x, y, x[:2] / 2, y[:2]), rng())
    assert np.array_equal(data.test.inputs, x[:2] / 2)
    assert np.array_equal(data.train.inputs, x)


def test_torch_data_sets_are_read_item_by_item() -> None:
    whole: Any = torch.utils.data.TensorDataset(torch.rand(12, 1, 3, 3), torch.arange(12) % 2)
    subsets = torch.utils.data.Subset(whole, range(8)), torch.utils.data.Subset(whole, range(8, 12))
    data = as_dataset(subsets, rng())
    assert data.train.inputs.shape == (8, 1, 3, 3)
    assert np.array_equal(data.test.inputs, whole.tensors[0][8:].numpy())
    assert data.test.targets.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": [1]}, "has no array inputs or x or x_train; it has a"),
        (([[1, 2], [3]], [0, 1]), "return numbers alike"),
        ((np.eye(20) * 7, np.arange(20) % 2), "must lie in [0, 1]"),
        ((torch.utils.data.TensorDataset(torch.eye(2)),) * 2, "should be a pair (input, target)"),
    ],
)
def test_wrong_arrays_are_refused_with_the_remedy(value: Any, says: str) -> None:
    with pytest.raises(FedmemError) as error:
        as_dataset(value, rng())
    assert says in str(error.value)
