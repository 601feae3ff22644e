"""Tests of `fedmem/injections/existing.py`: which rows are chosen, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmem
from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.data import ClientData, Space
from fedmem.contracts.reserve import Reserve
from fedmem.errors import ComponentError
from fedmem.execution.run import run
from fedmem.injections.existing import Existing
from tests.injections.injections_helpers import SPACE, rows
from tests.tiny import tiny

NAMES = ("ada", "ben", "cleo")


def clients(sizes: tuple[int, ...] = (12, 8, 9)) -> list[ClientData]:
    """Clients with consecutive rows, whose class is the id modulo 4."""
    starts = np.cumsum((0, *sizes))
    every = rows(np.arange(sum(sizes)) % 4)
    parts = []
    for k, size in enumerate(sizes):
        own = every.take(np.arange(starts[k], starts[k] + size))
        columns = {
            "age": own.ids + 0.5,
            "ward": np.array(["A", "B", "C"], dtype=object)[own.ids % 3],
            "code": np.array([f"{i % 5}" for i in own.ids.tolist()]),
            "smoker": np.array(["yes", "no"])[own.ids % 2],
        }
        parts.append(ClientData(client=k, examples=own, name=NAMES[k], columns=columns, max_taken=(size - 1) // 2))
    return parts


def plan(space: Space = SPACE, parts: list[ClientData] | None = None, **fields: Any) -> InjectionPlan:
    nothing = Reserve(rows(np.empty(0, dtype=np.int64)))
    return Existing(**fields).plan(parts or clients(), nothing, space, np.random.default_rng(0))


def test_named_rows_belong_to_the_clients_that_hold_them() -> None:
    planned = plan(rows=(20, 3, 12))
    assert planned.examples.ids.tolist() == [3, 12, 20]
    assert planned.owner.tolist() == [0, 1, 2]
    assert planned.examples.inputs[:, 0].tolist() == [3.0, 12.0, 20.0]
    assert planned.taken is not None
    assert planned.taken.tolist() == [3, 12, 20]


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ({"age": 7.5}, [7]),
        ({"age": "7.5"}, [7]),
        ({"ward": "A", "client": "ada"}, [0, 3, 6, 9]),
        ({"ward": ("A", "B"), "class": 0}, [0, 4, 12, 16, 24, 28]),
        ({"code": 3, "client": ("ben", "cleo")}, [13, 18, 23, 28]),
        ({"smoker": True, "client": "ben"}, [12, 14, 16, 18]),
        ({"class": (1, 3), "client": "cleo"}, [21, 23, 25, 27]),
    ],
)
def test_where_chooses_rows_with_all_of_the_values(where: dict[str, Any], ids: list[int]) -> None:
    allowed = [ClientData(**{**vars(part), "max_taken": 99}) for part in clients()]
    assert plan(where=where, parts=allowed).examples.ids.tolist() == ids


def test_classes_are_chosen_by_name_where_they_have_names() -> None:
    space = Space(**{**vars(SPACE), "class_names": ("cat", "dog", "eel", "fox")})
    assert set(plan(space, where={"class": "eel"}).examples.targets.tolist()) == {2}
    assert set(plan(space, where={"class": 2}).examples.targets.tolist()) == {2}


def test_a_share_is_rounded_and_drawn_without_repetition() -> None:
    planned = plan(share=0.25)
    assert np.bincount(planned.owner).tolist() == [3, 2, 2]
    assert len(set(planned.examples.ids.tolist())) == 7
    assert np.bincount(plan(per_client=3, clients=(0, 2)).owner).tolist() == [3, 0, 3]
    assert len(plan(parts=clients((9, 9, 9))).examples) == 12


def test_clients_are_named_by_number_or_name() -> None:
    assert np.bincount(plan(per_client=3, clients=("cleo", 0)).owner).tolist() == [3, 0, 3]
    for choice, message in ((("zoe",), "no client is called 'zoe'.*ada"), ((0, "ada"), "names a client twice")):
        with pytest.raises(ComponentError, match=message):
            plan(per_client=3, clients=choice)


def test_per_client_draws_among_the_rows_that_match() -> None:
    planned = plan(where={"smoker": True}, per_client=2)
    assert np.bincount(planned.owner).tolist() == [2, 2, 2]
    assert (planned.examples.ids % 2 == 0).all()
    with pytest.raises(ComponentError, match=r"5 matching rows .* client 1 \(ben\) holds 4;") as error:
        plan(where={"smoker": True}, per_client=5)
    # no owner has further rows, so that another population would not help
    assert "hold 15 matching rows in all. Enough are held by 2 clients: 0, 2" in str(error.value)
    assert "population" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"per_client": 4}, "per_client", r"4 rows of client 1 \(ben\) are chosen, but of its 8 rows at most 3 can be"),
        ({"per_client": 40}, "per_client", "Possible are 12 of the 120 rows"),
        ({"share": 0.9}, "share", "and 2 more clients hold too few"),
        ({"share": 0.01}, "share", "no row of the 3 clients is chosen"),
        ({"rows": (12, 13, 14, 15)}, "rows", "4 rows of client 1 .* choose fewer"),
        ({"rows": (3, 14), "clients": (0, 2)}, "rows", "row 14 is held by none of the 2 clients.*clients: all"),
        ({"where": {"war": "A"}}, "where", "no column 'war' .did you mean 'ward'.*age, ward, code, smoker, class, cl"),
        ({"where": {"ward": "D"}}, "where.ward", "no row of these clients has 'D'; their values are A, B, C"),
        ({"where": {"smoker": [True, False]}}, "where", "`per_client` chooses fewer of the matching rows$"),
        ({"per_client": 40}, "per_client", "Lower `population`"),
        ({"where": {"age": 99}}, "where.age", "their values are 0.5 to 28.5"),
        ({"where": {"client": "zoe"}}, "where.client", "their values are ada, ben, cleo"),
        ({"where": {"age": 0.5, "ward": "B"}}, "where", "no row of these clients has all of these values"),
    ],
)
def test_impossible_choices_say_what_is_possible(fields: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ComponentError, match=message) as error:
        plan(**fields)
    assert error.value.path == f"injections.{path}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": (1,), "share": 0.1}, "rows and share both choose rows"),
        ({"rows": ()}, "an empty list chooses nothing"),
        ({"rows": (4, 4)}, "row 4 is named twice"),
        ({"where": {}}, "an empty mapping says nothing"),
    ],
)
def test_wrong_selectors_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        Existing(**fields)


def odd_rows(folder: Path) -> tuple[str, list[int]]:
    """Two classes that any model separates, and rows that have the label of the other class. Their ids."""
    rng = np.random.default_rng(0)
    targets = np.arange(160) % 2
    inputs = rng.random((160, 60)) * 0.5
    inputs[:, 0] = targets
    odd = list(range(0, 160, 20))
    targets[odd] = 1 - targets[odd]
    path = folder / "rows.npz"
    np.savez(path, x=inputs, y=targets, x_test=inputs[1:20:2], y_test=targets[1:20:2])
    return str(path), odd


@pytest.mark.parametrize(("epochs", "lr", "low", "high"), [(40, 0.3, 0.9, 1.0), (1, 1e-12, 0.0, 0.0)])
def test_memorised_rows_have_one_and_unfitted_rows_none(
    tmp_path: Path, epochs: int, lr: float, low: float, high: float
) -> None:
    """Mislabelled rows that the data really have: an over-fitted model knows them only by heart."""
    path, odd = odd_rows(tmp_path)
    scenario = tiny(
        dataset={"kind": "npz", "path": path},
        clients=2,
        rounds=1,
        runs=8,
        population=0,
        model={"kind": "mlp", "hidden": [64]},
        sampler={"kind": "everyone"},
        injections=[{"kind": "existing", "rows": odd}],
        client={"kind": "sgd", "lr": lr, "epochs": epochs, "batch_size": 4},
        observe={"levels": ["local", "global"]},
        estimators=[{"kind": "memorisation"}],
    )
    frame = fedmem.read(run(scenario, out=tmp_path)).measurements
    at_owner = frame[(frame.metric == "memorisation") & (frame.scope == "summary") & (frame.level == "local")]
    values = at_owner[(at_owner.subject == "existing") & (at_owner.place == "owner")].value
    assert len(values)
    assert low <= values.iloc[0] <= high


@pytest.mark.parametrize(
    ("value", "ids"), [("007", [0, 3]), ("7", [1, 4]), (7, [1, 4]), ((7, "07"), [1, 2, 4]), (9.0, [5]), (9, [5])]
)
def test_codes_match_as_text_and_only_then_as_numbers(value: Any, ids: list[int]) -> None:
    codes = np.array(["007", "7", "07", "007", "7", "09"])
    parts = [
        ClientData(
            client=k, examples=part.examples.take(np.arange(3)), columns={"code": codes[3 * k : 3 * k + 3]}, max_taken=3
        )
        for k, part in enumerate(clients((3, 3)))
    ]
    assert plan(parts=parts, where={"code": value}).examples.ids.tolist() == ids


def test_a_code_in_quotes_is_no_number_of_a_column() -> None:
    with pytest.raises(ComponentError, match="no row of these clients has '007'"):
        plan(where={"code": "007"})
