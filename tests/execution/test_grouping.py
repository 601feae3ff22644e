"""Tests of `fedmem/execution/grouping.py`: which scenarios share data, and which are trained together."""

from __future__ import annotations

from typing import Any

from fedmem.contracts.federation import digest
from fedmem.execution import grouping
from fedmem.execution.grouping import data_of, divide_into_banks
from fedmem.federation.build import build
from tests.execution.many_scenarios_helpers import small


def test_scenarios_with_the_same_data_have_the_same_federation() -> None:
    """Every field that is said not to matter is changed, and nothing of the federation does."""
    changes: dict[str, Any] = {
        "name": "other",
        "sampler": {"kind": "everyone"},
        "client": {"kind": "sgd", "lr": 0.5, "momentum": 0.5},
        "defences": [{"kind": "clip"}],
        "strategy": {"kind": "fedmedian"},
        "roster": "per_run",
        "cohort_by": "strategy",
        "observe": {"every": 1},
        "probes": [],
        "estimators": [],
        "bootstrap": 20,
        "tolerate": {"max_failed_share": 0.5},
        "save": {"params": False},
        "speed": {"executor": "one_by_one"},
        "repeat": 2,
    }
    assert changes.keys() == grouping._NO_DATA
    base = small()
    found = digest(build(base))
    for name, value in changes.items():
        other = small(**{name: value})
        assert data_of(other) == data_of(base)
        assert digest(build(other)) == found, name
    for name, value in {"seed": 4, "population": 10, "model": {"kind": "mlp", "hidden": [4]}, "runs": 2}.items():
        assert data_of(small(**{name: value})) != data_of(base)
    assert digest(build(small(seed=4))) != found
    needs = {"sampler": {"kind": "tests.toys:Loudest"}, "roster": "pilot"}
    assert data_of(small(**needs)) != data_of(base)  # a pilot has coins of its own


def test_banks_are_few_but_give_every_process_some() -> None:
    many = {i: small(seed=i // 4, sampler={"kind": "uniform", "size": 1 + i % 4}) for i in range(8)}
    assert divide_into_banks(many, workers=1) == ([tuple(range(8))], [])
    assert divide_into_banks(many, workers=2) == ([(0, 1, 2, 3), (4, 5, 6, 7)], [])
    mixed = {i: many[(i % 2) * 4 + i // 2] for i in range(8)}
    assert divide_into_banks(mixed, workers=2) == (
        [(0, 2, 4, 6), (1, 3, 5, 7)],
        [],
    )  # those with the same data together
    threads = {i: small(speed={"threads": 2}, seed=i) for i in range(2)}
    assert divide_into_banks(threads, workers=1) == ([(0,), (1,)], [])
    assert divide_into_banks({0: small(speed={"executor": "one_by_one"}), 1: small()}, workers=1)[0] == [(0,), (1,)]
    assert divide_into_banks({0: small(speed={"engine": "flower"})}, workers=1) == ([], [0])


def test_scenarios_on_gpus_have_banks_of_their_own() -> None:
    """Of as many as there are GPUs, however many processes train the others."""
    gpu = {"device": "cuda"}
    many = {i: small(seed=i, runs=4, speed=gpu if i % 2 else {}) for i in range(8)}
    assert divide_into_banks(many, workers=4) == ([(0,), (2,), (4,), (6,), (1, 3, 5, 7)], [])
    assert divide_into_banks(many, workers=1, gpus=2) == ([(0, 2, 4, 6), (1, 3), (5, 7)], [])
    cnns = {i: small(seed=i, model={"kind": "small_cnn"}, dataset={"kind": "digits"}, speed=gpu) for i in range(2)}
    assert divide_into_banks(cnns, workers=1) == ([(0, 1)], [])
