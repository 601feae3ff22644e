"""What every injection promises, for every file in the folder, on pictures, a table or a text, whichever it is for."""

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.audit_set import InjectionPlan, References, Role
from fedmem.contracts.data import ClientData, Dataset, Examples, Space
from fedmem.contracts.injection import (
    AimedInjection,
    CanaryInjection,
    ClassInjection,
    Injection,
    injection_declaration,
)
from fedmem.contracts.reserve import Reserve
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError
from fedmem.modalities.tables import Tables
from fedmem.modalities.text.vocabulary import Vocabulary
from fedmem.modalities.text.windows import inputs_and_targets
from fedmem.modalities.texts import Texts
from fedmem.scenario import catalogue

CLIENTS, CLASSES, SHAPE, ROWS = 4, 4, (1, 8, 8), 400


def pictures() -> Dataset:
    return Synthetic(rows=ROWS, shape=SHAPE, classes=CLASSES).load(np.random.default_rng(0))


def table() -> Dataset:
    """Two numbers, a category of three and one of five."""
    rng = np.random.default_rng(0)
    columns = [
        rng.normal(size=(ROWS, 1)),
        rng.random((ROWS, 1)),
        *(np.eye(k)[rng.integers(k, size=ROWS)] for k in (3, 5)),
    ]
    examples = Examples(
        inputs=np.concatenate(columns, axis=1).astype(np.float32),
        targets=rng.integers(CLASSES, size=ROWS),
        ids=np.arange(ROWS),
    )
    return Dataset(train=examples, test=examples, num_classes=CLASSES, modality=Tables(blocks=(1, 1, 3, 5)))


def text() -> Dataset:
    """Rows of random characters."""
    vocabulary = Vocabulary.learn("characters", [])
    rng = np.random.default_rng(0)
    inputs, targets = inputs_and_targets(rng.integers(1, len(vocabulary), size=(ROWS, 71)))
    examples = Examples(inputs=inputs, targets=targets, ids=np.arange(ROWS))
    return Dataset(
        train=examples, test=examples, num_classes=len(vocabulary), modality=Texts(vocabulary=vocabulary.tokens)
    )


WORLDS = {"pictures": pictures(), "table": table(), "text": text()}
TEXTS = {"near_duplicate", "personal", "random_tokens", "secret", "typical"}
FIELDS: dict[tuple[str, str], dict[str, Any]] = {("near_duplicate", "text"): {"change": "tokens"}}
"""What a kind needs in a world where its defaults do not fit."""


def make(kind: str, **fields: Any) -> Injection:
    component = catalogue.load("injection", kind)(**fields)
    assert isinstance(component, Injection)
    return component


def reserve(world: str) -> Examples:
    return WORLDS[world].train.take(np.arange(100, ROWS))


def plan(kind: str, world: str, seed: int = 0, **fields: Any) -> tuple[InjectionPlan, Reserve]:
    data, spare = WORLDS[world], Reserve(reserve(world))
    base = [ClientData(client=k, examples=data.train.take(np.arange(25 * k, 25 * k + 25))) for k in range(CLIENTS)]
    injection, space = make(kind, **FIELDS.get((kind, world), {}), **fields), Space.of(data)
    rng = np.random.default_rng(seed)
    if isinstance(injection, AimedInjection):
        targets = make("typical", per_client=8).plan(base, Reserve(reserve(world)), space, np.random.default_rng(0))
        return injection.plan_against(targets, base, spare, space, rng), spare
    return injection.plan(base, spare, space, rng), spare


def refusal(kind: str, world: str) -> ComponentError | None:
    try:
        plan(kind, world)
    except ComponentError as error:
        return error
    return None


KINDS = catalogue.kinds("injection")
FROM_CLIENTS = {kind for kind in KINDS if injection_declaration(make(kind)).takes_held}
"""Kinds that take rows which clients hold; `tests/federation/test_held_rows.py` has what these guarantee."""
OTHERS = [kind for kind in KINDS if kind not in FROM_CLIENTS]
WHERE = {kind: [world for world in WORLDS if world != "text" or kind in TEXTS] for kind in OTHERS}
FITTING = [(kind, world) for kind in OTHERS for world in WHERE[kind] if refusal(kind, world) is None]
everywhere = pytest.mark.parametrize(("kind", "world"), FITTING)
CANARIES = [(kind, world) for kind, world in FITTING if make(kind).role == "canary"]


def same(one: Examples, other: Examples) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("inputs", "targets", "ids"))


@pytest.mark.parametrize("kind", OTHERS)
def test_fits_somewhere_and_refuses_the_rest_with_a_remedy(kind: str) -> None:
    refused = [error for world in WHERE[kind] if (error := refusal(kind, world)) is not None]
    assert len(refused) < len(WHERE[kind])
    for error in refused:
        assert error.path.split(".")[0] == "injections"
        assert kind in error.message
        assert "use " in error.message


@everywhere
def test_plans_whole_examples_on_existing_clients(kind: str, world: str) -> None:
    injected, _ = plan(kind, world)
    count = len(injected.examples)
    assert count > 0
    assert injected.examples.inputs.dtype == WORLDS[world].train.inputs.dtype
    assert injected.examples.inputs.shape == (count, *WORLDS[world].train.inputs.shape[1:])
    assert injected.examples.targets.dtype == np.int64
    if world == "text":
        asked_for = injected.examples.targets >= 0
        assert asked_for.any(axis=1).all()
        assert injected.examples.targets.min() >= -1
    else:
        assert set(injected.examples.targets.tolist()) <= set(range(CLASSES))
    assert injected.owner.shape == injected.copies.shape == (count,)
    assert injected.owner.dtype == injected.copies.dtype == np.int32
    assert set(injected.owner.tolist()) <= {-1, *range(CLIENTS)}
    assert injected.copies.min() >= 1


@everywhere
@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("clients", ["all", (2,), {"share": 0.5}, {"count": 3}])
def test_takes_and_copies_what_it_announced(kind: str, world: str, clients: Any, copies: int) -> None:
    """The announcement is what gets reserved: less would starve the fill-ins, more would waste rows."""
    injected, spare = plan(kind, world, clients=clients, copies=copies)
    made = make(kind, clients=clients, copies=copies)
    assert len(reserve(world)) - len(spare) == made.reserve_rows(CLIENTS, ROWS)
    assert injected.copies.sum() == made.total_copies(CLIENTS, ROWS)
    owners = {"all": 4, (2,): 1}.get(clients, 0) if not isinstance(clients, dict) else 2 if "share" in clients else 3
    assert len(np.unique(injected.owner)) == owners
    assert np.all(np.diff(injected.owner) >= 0)


@everywhere
def test_every_extra_row_is_used_by_one_example(kind: str, world: str) -> None:
    injected, _ = plan(kind, world, copies=2)
    assert (injected.extra is None) == (injected.copy_index is None)
    if injected.extra is None or injected.copy_index is None:
        return
    assert len(injected.copy_index) == injected.copies.sum()
    assert injected.copy_index.min() >= -1
    used, times = np.unique(injected.copy_index[injected.copy_index >= 0], return_counts=True)
    np.testing.assert_array_equal(used, np.arange(len(injected.extra)))
    assert set(times.tolist()) == {2}
    assert injected.extra.inputs.dtype == WORLDS[world].train.inputs.dtype
    # A row that stands for an example stands for no other.
    subject = np.repeat(np.arange(len(injected.examples)), injected.copies)
    pairs = {(int(row), int(who)) for row, who in zip(injected.copy_index, subject, strict=True) if row >= 0}
    assert len(pairs) == len(injected.extra)


@everywhere
def test_real_rows_keep_their_id_and_leave_the_reserve(kind: str, world: str) -> None:
    injected, spare = plan(kind, world)
    parts = [injected.examples.ids, *([] if injected.extra is None else [injected.extra.ids])]
    real = np.concatenate([ids[ids >= 0] for ids in parts])
    assert len(np.unique(real)) == len(real)
    assert all(len(np.unique(ids)) == len(ids) for ids in parts)
    assert set(real.tolist()) <= set(reserve(world).ids.tolist())
    assert not set(real.tolist()) & set(spare.remaining().ids.tolist())


@everywhere
def test_values_stay_within_the_range_of_the_data(kind: str, world: str) -> None:
    inputs, data = plan(kind, world)[0].examples.inputs, WORLDS[world].train.inputs
    ranges = {"pictures": (0.0, 1.0), "table": (data.min(), data.max()), "text": (0, WORLDS["text"].num_classes - 1)}
    low, high = ranges[world]
    assert low - 1e-6 <= inputs.min()
    assert inputs.max() <= high + 1e-6


@everywhere
def test_draws_from_its_generator_alone(kind: str, world: str) -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002 (the global generator must stay untouched)
    first, second, third = plan(kind, world, 1)[0], plan(kind, world, 1)[0], plan(kind, world, 2)[0]
    assert same(first.examples, second.examples)
    assert not same(first.examples, third.examples)
    np.testing.assert_array_equal(before, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002


@everywhere
def test_leaves_its_input_alone(kind: str, world: str) -> None:
    data = WORLDS[world].train
    before = data.inputs.copy(), data.targets.copy()
    plan(kind, world)
    np.testing.assert_array_equal(before[0], data.inputs)
    np.testing.assert_array_equal(before[1], data.targets)


@everywhere
def test_passes_its_window_on(kind: str, world: str) -> None:
    injected, _ = plan(kind, world, start=3, stop=7)
    assert (injected.start, injected.stop) == (3, 7)
    assert same(injected.examples, plan(kind, world)[0].examples)


@pytest.mark.parametrize("kind", KINDS)
def test_has_a_role_and_a_name(kind: str) -> None:
    assert make(kind).role in get_args(Role)
    assert make(kind).name == kind
    assert make(kind, label="mine").name == "mine"


@pytest.mark.parametrize("kind", KINDS)
def test_canaries_and_only_they_make_fresh_references(kind: str) -> None:
    assert isinstance(make(kind), CanaryInjection) == (make(kind).role == "canary")


@pytest.mark.parametrize(("kind", "world"), CANARIES)
def test_canaries_and_references_are_exchangeable(kind: str, world: str) -> None:
    """No value tells the one from the other, and no two are equal: a rank among references means something."""
    injection = make(kind)
    assert isinstance(injection, CanaryInjection)
    space = Space.of(WORLDS[world])
    first, second = (fresh(injection, space) for _ in range(2))
    assert first.dtype == WORLDS[world].train.inputs.dtype
    np.testing.assert_array_equal(first, second)
    fields = {"per_client": 50} | ({"images": 1} if hasattr(injection, "images") else {})
    injected, _ = plan(kind, world, **fields)
    assert injected.examples.ids.max() < 0
    canaries = injected.examples.inputs
    every = np.concatenate([first, canaries]).reshape(400, -1)
    assert world == "text" or len(np.unique(every, axis=0)) == 400
    lowest = min(
        stats.ks_2samp(first.reshape(200, -1)[:, k], canaries.reshape(200, -1)[:, k], method="asymp").pvalue
        for k in range(every.shape[1])
    )
    assert lowest > 1e-3 / every.shape[1]
    if world == "text":
        assert len(np.unique(canaries, axis=0)) == 200
        return
    # The label is drawn for itself: the values of a class are those of the others.
    half = injected.examples.targets < CLASSES / 2
    means = canaries.reshape(200, -1).mean(axis=1)
    assert stats.ks_2samp(means[half], means[~half], method="asymp").pvalue > 1e-3


def fresh(injection: CanaryInjection, space: Space) -> Any:
    found = injection.references(200, space, np.random.default_rng(5))
    return found.inputs if isinstance(found, References) else found


@everywhere
def test_rows_of_one_class_come_from_that_class(kind: str, world: str) -> None:
    injection = make(kind)
    if not isinstance(injection, ClassInjection):
        return
    injected, _ = plan(kind, world)
    true = WORLDS[world].train.targets[injected.examples.ids]
    assert set(true.tolist()) == {injection.reserved_class}
    short = Reserve(reserve(world).take(np.arange(2)))
    data = WORLDS[world]
    base = [ClientData(client=0, examples=data.train.take(np.arange(5)))]
    with pytest.raises(ComponentError, match=r"are wanted but .* are left; lower per_client or clients"):
        injection.plan(base, short, Space.of(data), np.random.default_rng(0))
    with pytest.raises(ComponentError, match=r"there is no class .*; use 0 to"):
        injection.plan(
            base, short, replace(Space.of(data), num_classes=injection.reserved_class), np.random.default_rng(0)
        )
