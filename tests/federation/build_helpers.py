"""What tests of build share."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedmem.contracts.data import Examples
from fedmem.contracts.federation import Federation
from fedmem.datasets.synthetic import Synthetic
from fedmem.injections.mislabelled import Mislabelled
from fedmem.injections.random_pattern import RandomPattern
from fedmem.injections.typical import Typical
from fedmem.models.mlp import MLP
from fedmem.partitions.iid import IID
from fedmem.scenario.scenario import Scenario


def scenario(**changes: Any) -> Scenario:
    """A small federation with one injection of each role."""
    fields: dict[str, Any] = {
        "name": "small",
        "rounds": 2,
        "runs": 4,
        "clients": 5,
        "dataset": Synthetic(rows=400, test=50, groups=5),
        "partition": IID(),
        "model": MLP(hidden=(4,)),
        "injections": (RandomPattern(per_client=2), Mislabelled(per_client=2), Typical(per_client=1, copies=3)),
        "population": 40,
        "references": 20,
    }
    return Scenario(**(fields | changes))


def arrays(built: Federation) -> dict[str, np.ndarray]:
    """Everything in a federation that can be compared."""
    found: dict[str, np.ndarray] = {f"initial {name}": value.numpy() for name, value in built.initial.items()}
    for name in ("store", "test", "population"):
        rows: Examples = getattr(built, name)
        found |= {f"{name} inputs": rows.inputs, f"{name} targets": rows.targets, f"{name} ids": rows.ids}
    found |= {f"base {client}": rows for client, rows in enumerate(built.base)}
    found |= {
        name: getattr(built.audit, name) for name in ("kind", "role", "owner", "copies", "is_in", "start", "stop")
    }
    found |= {f"references {item.family}": item.inputs for item in built.references}
    return found | {"fill": built.replacement, "trained": built.trained_rows}


def changed(one: Federation, other: Federation) -> set[str]:
    """The names of the arrays in which two federations differ."""
    first, second = arrays(one), arrays(other)
    return {
        name
        for name in first | second
        if name not in first or name not in second or not np.array_equal(first[name], second[name])
    }
