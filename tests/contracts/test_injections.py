"""What every injection promises, for every file in the folder."""

from typing import get_args

import numpy as np
import pytest

from fedmem import catalogue
from fedmem.components import CanaryInjection, Injection
from fedmem.datasets.synthetic import Synthetic
from fedmem.spare import Spare
from fedmem.types import ClientData, Examples, Injected, Role

CLIENTS, CLASSES, SHAPE = 4, 4, (1, 8, 8)
every_injection = pytest.mark.parametrize("kind", catalogue.kinds("injection"))


def make(kind: str) -> Injection:
    component = catalogue.load("injection", kind)()
    assert isinstance(component, Injection)
    return component


ROWS = Synthetic(rows=400, shape=SHAPE, classes=CLASSES).load(np.random.default_rng(0)).train
BASE = [ClientData(client=k, examples=ROWS.take(np.arange(25 * k, 25 * k + 25))) for k in range(CLIENTS)]
RESERVE = ROWS.take(np.arange(100, 400))


def plan(kind: str, seed: int = 0) -> tuple[Injected, Spare]:
    spare = Spare(RESERVE)
    return make(kind).plan(BASE, spare, CLASSES, np.random.default_rng(seed)), spare


def same(one: Examples, other: Examples) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("inputs", "targets", "ids"))


@every_injection
def test_plans_whole_examples_on_existing_clients(kind: str) -> None:
    injected, _ = plan(kind)
    count = len(injected.examples)
    assert count > 0
    assert injected.examples.inputs.dtype == np.float32
    assert injected.examples.inputs.shape == (count, *SHAPE)
    assert injected.examples.targets.dtype == np.int64
    assert set(injected.examples.targets.tolist()) <= set(range(CLASSES))
    assert injected.holder.shape == injected.copies.shape == (count,)
    assert injected.holder.dtype == injected.copies.dtype == np.int32
    assert set(injected.holder.tolist()) <= {-1, *range(CLIENTS)}
    assert injected.copies.min() >= 1


@every_injection
def test_takes_and_copies_what_it_announced(kind: str) -> None:
    """The announcement is what gets reserved, so more would starve the fill-ins."""
    injected, spare = plan(kind)
    assert len(RESERVE) - len(spare) == make(kind).spare_rows(CLIENTS)
    assert injected.copies.sum() == make(kind).total_copies(CLIENTS)


@every_injection
def test_real_rows_keep_their_id_and_leave_the_reserve(kind: str) -> None:
    injected, spare = plan(kind)
    ids = injected.examples.ids
    assert len(np.unique(ids)) == len(ids)
    real = ids[ids >= 0]
    assert set(real.tolist()) <= set(RESERVE.ids.tolist())
    assert not set(real.tolist()) & set(spare.left().ids.tolist())


@every_injection
def test_draws_from_its_generator_alone(kind: str) -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002 (the global generator must stay untouched)
    first, second, third = plan(kind, 1)[0], plan(kind, 1)[0], plan(kind, 2)[0]
    assert same(first.examples, second.examples)
    assert not same(first.examples, third.examples)
    np.testing.assert_array_equal(before, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002


@every_injection
def test_has_a_role_and_a_name(kind: str) -> None:
    assert make(kind).role in get_args(Role)
    assert make(kind).name == kind
    assert catalogue.load("injection", kind)(label="mine").name == "mine"


@every_injection
def test_canaries_and_only_they_make_fresh_references(kind: str) -> None:
    injection = make(kind)
    assert isinstance(injection, CanaryInjection) == (injection.role == "canary")
    if not isinstance(injection, CanaryInjection):
        return
    first, second = (injection.references(50, SHAPE, np.random.default_rng(5)) for _ in range(2))
    assert first.dtype == np.float32
    assert first.shape == (50, *SHAPE)
    np.testing.assert_array_equal(first, second)
    patterns = np.concatenate([first, plan(kind)[0].examples.inputs]).reshape(-1, 64)
    assert len(np.unique(patterns, axis=0)) == len(patterns)
    assert plan(kind)[0].examples.ids.max() < 0
