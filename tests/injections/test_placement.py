"""Who holds the examples of an injection, drawn from its own stream, and when they are trained on."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedmem.contracts.data import ClientData, Examples
from fedmem.errors import ComponentError, ScenarioError
from fedmem.federation.build import build
from fedmem.injections._placement import owning_clients
from fedmem.injections.typical import Typical
from fedmem.scenario import catalogue
from fedmem.scenario.loading import parse_scenario


def people(count: int) -> list[ClientData]:
    row = Examples(inputs=np.zeros((1, 1), np.float32), targets=np.zeros(1, np.int64), ids=np.zeros(1, np.int64))
    return [ClientData(client=k, examples=row) for k in range(count)]


def owners(clients: Any, count: int, seed: int = 0) -> list[int]:
    found = owning_clients(Typical(clients=clients), people(count), np.random.default_rng(seed))
    return [data.client for data in found]


choices = st.one_of(
    st.just("all"),
    st.integers(1, 12).map(lambda n: {"count": n}),
    st.floats(0.01, 1).map(lambda share: {"share": share}),
    st.lists(st.integers(0, 11), min_size=1, unique=True).map(tuple),
)


@given(clients=choices, extra=st.integers(0, 5), seed=st.integers(0, 100), per_client=st.integers(1, 5))
def test_owners_are_as_many_as_announced_sorted_and_distinct(
    clients: Any, extra: int, seed: int, per_client: int
) -> None:
    count = 12 + extra
    found = owners(clients, count, seed)
    injection = Typical(clients=clients, per_client=per_client, copies=2)
    assert found == sorted(set(found))
    assert set(found) <= set(range(count))
    assert len(found) == injection._num_owners(count) >= 1
    assert injection.reserve_rows(count, 900) == len(found) * per_client
    assert injection.total_copies(count, 900) == 2 * len(found) * per_client
    if isinstance(clients, tuple):
        assert found == sorted(clients)


@pytest.mark.parametrize(("share", "count", "expected"), [(0.3, 20, 6), (0.5, 5, 3), (0.01, 20, 1), (1.0, 7, 7)])
def test_a_share_is_rounded_to_whole_clients(share: float, count: int, expected: int) -> None:
    assert Typical(clients={"share": share})._num_owners(count) == expected


def test_every_client_is_drawn_equally_often() -> None:
    counts = np.bincount([k for seed in range(3000) for k in owners({"count": 2}, 6, seed)], minlength=6)
    # Two different clients of six, so the counts vary less than those of independent draws: a small p shows a bias.
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.chisquare(counts, counts.sum() * np.array([2, 2, 2, 2, 2, 2.6]) / 12.6).pvalue < 1e-3


@pytest.mark.parametrize("clients", ["all", (1, 3)])
def test_named_clients_consume_no_random_draws(clients: Any) -> None:
    """So that the numbers of scenarios that name their clients do not depend on how they are named."""
    rng = np.random.default_rng(0)
    owning_clients(Typical(clients=clients), people(5), rng)
    assert rng.integers(2**62) == np.random.default_rng(0).integers(2**62)


@pytest.mark.parametrize("clients", ["all", [0, 2], {"share": 0.5}, {"count": 2}])
def test_yaml_gives_the_same_component_and_back(clients: Any) -> None:
    built = catalogue.build("injection", {"kind": "typical", "clients": clients})
    assert catalogue.dump(built)["clients"] == clients
    assert catalogue.build("injection", catalogue.dump(built)) == built
    assert hash(built) == hash(catalogue.build("injection", {"kind": "typical", "clients": clients}))


@pytest.mark.parametrize(
    ("fields", "path", "says"),
    [
        ({"clients": ()}, "clients", "puts the examples nowhere"),
        ({"clients": (1, 1)}, "clients", "names a client twice"),
        ({"clients": {}}, "clients", "exactly one key"),
        ({"clients": {"share": 0.5, "count": 2}}, "clients", "exactly one key"),
        ({"clients": {"share": 0}}, "clients", "above 0"),
        ({"clients": {"share": 1.5}}, "clients", "not above 1"),
        ({"clients": {"count": 0}}, "clients", "whole number from 1"),
        ({"clients": {"count": 2.5}}, "clients", "whole number from 1"),
        ({"start": 5, "stop": 4}, "stop", "comes before start"),
    ],
)
def test_invalid_clients_of_an_injection_are_refused(fields: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(ComponentError, match=says) as caught:
        Typical(**fields)
    assert caught.value.path == path
    with pytest.raises(ScenarioError, match=says):
        catalogue.build("injection", {"kind": "typical", **fields})


def test_a_window_of_one_round_is_a_window() -> None:
    assert Typical(start=5, stop=5).start == 5


UNMASKED = """
runs: 4
rounds: 3
clients: 3
dataset: {kind: digits}
model: {kind: logistic}
estimators: [{kind: memorisation}]
injections:
  - {kind: typical, label: masked, per_client: 2, copies: 3}
  - {kind: typical, label: kept, per_client: 2, copies: 3, unmasked: 2}
  - {kind: near_duplicate, label: near, per_client: 1, multiplicity: 3, unmasked: 2, start: 2}
"""


@pytest.mark.parametrize("exclusion", ["replace", "remove"])
def test_unmasked_copies_are_trained_on_by_either_coin(exclusion: str) -> None:
    federation = build(parse_scenario(f"exclusion: {exclusion}\n{UNMASKED}"))
    audit, plain = federation.audit, build(parse_scenario(UNMASKED.replace(", unmasked: 2", ""))).audit
    assert np.array_equal(audit.is_in, plain.is_in)  # coins and all other draws are as without
    for example, kind in enumerate(audit.kind.tolist()):
        slots = np.flatnonzero(audit.subject == example)
        for run in range(audit.runs):
            for round_number in (1, 2, 3):
                held = federation.rows(run, int(audit.owner[example]), round_number)
                there = [int((held == row).sum()) for row in dict.fromkeys(federation.trained_rows[slots].tolist())]
                inside = bool(audit.is_in[run, example]) and round_number >= audit.start[example]
                expected = {"masked": [3 if inside else 0], "kept": [3 if inside else 2], "near": [int(inside), 1, 1]}
                assert there == expected[kind]


@pytest.mark.parametrize(("copies", "unmasked", "most"), [(1, 1, 0), (4, 5, 3)])
def test_a_coin_must_decide_something(copies: int, unmasked: int, most: int) -> None:
    text = UNMASKED.replace("copies: 3, unmasked: 2", f"copies: {copies}, unmasked: {unmasked}")
    with pytest.raises(ComponentError) as caught:
        build(parse_scenario(text))
    assert caught.value.path == "injections[1].unmasked"
    assert f"write at most {most}" in caught.value.message
