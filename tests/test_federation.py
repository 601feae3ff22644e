"""A federation loses no row, leaks no row, and each step draws from its own stream."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from fedmem import federation
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError, Problem, ScenarioError
from fedmem.injections.mislabelled import Mislabelled
from fedmem.injections.random_pattern import RandomPattern
from fedmem.injections.typical import Typical
from fedmem.models.mlp import MLP
from fedmem.models.small_cnn import SmallCNN
from fedmem.partitions.dirichlet import Dirichlet
from fedmem.partitions.iid import IID
from fedmem.partitions.natural import Natural
from fedmem.scenario import Scenario
from fedmem.seeding import stream
from fedmem.types import Examples, Federation, Injected


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
    found |= {name: getattr(built.audit, name) for name in ("kind", "role", "holder", "copies", "is_in")}
    found |= {f"references {item.family}": item.inputs for item in built.references}
    return found | {"fill": built.fill}


def changed(one: Federation, other: Federation) -> set[str]:
    """The names of the arrays in which two federations differ."""
    first, second = arrays(one), arrays(other)
    return {
        name
        for name in first | second
        if name not in first or name not in second or not np.array_equal(first[name], second[name])
    }


injections = st.lists(
    st.builds(
        lambda kind, per_client, copies: (kind, per_client, copies),
        st.sampled_from([RandomPattern, Mislabelled, Typical]),
        st.integers(1, 3),
        st.integers(1, 3),
    ),
    max_size=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**31),
    runs=st.sampled_from([1, 2, 4, 10]),
    clients=st.integers(1, 6),
    population=st.integers(0, 60),
    exclusion=st.sampled_from(["replace", "remove"]),
    partition=st.sampled_from([IID(), Dirichlet(alpha=1.0, min_rows=1)]),
    planned=injections,
)
def test_every_row_has_one_place(
    seed: int, runs: int, clients: int, population: int, exclusion: str, partition: IID | Dirichlet, planned: list[Any]
) -> None:
    asked = scenario(
        seed=seed,
        runs=runs,
        clients=clients,
        population=population,
        exclusion=exclusion,
        partition=partition,
        dataset=Synthetic(rows=700, test=50),
        injections=tuple(
            kind(per_client=count, copies=copies, label=f"kind{i}") for i, (kind, count, copies) in enumerate(planned)
        ),
    )
    built = federation.build(asked)
    audit, store = built.audit, built.store

    # Disjoint and complete over the data set.
    real = store.ids[store.ids >= 0]
    everywhere = np.concatenate([real, built.test.ids, built.population.ids])
    np.testing.assert_array_equal(np.sort(everywhere), np.arange(750))
    generated = store.ids[store.ids < 0]
    assert len(np.unique(generated)) == len(generated)
    assert sum(built.counts[name] for name in ("test", "population", "audit", "fill-ins", "base")) == 750
    assert built.counts["total"] == 750
    assert sum(len(rows) for rows in built.base) == built.counts["base"] == built.audit_start
    np.testing.assert_array_equal(np.concatenate(built.base), np.arange(built.audit_start))
    np.testing.assert_array_equal(audit.examples.ids, store.ids[built.audit_start : built.audit_start + len(audit)])

    # Holders and copies are as asked.
    for i, (_, count, copies) in enumerate(planned):
        mine = audit.kind == f"kind{i}"
        assert np.bincount(audit.holder[mine], minlength=clients).tolist() == [count] * clients
        assert set(audit.copies[mine].tolist()) == {copies}

    # Coins are balanced.
    assert audit.is_in.shape == (runs, len(audit))
    if runs > 1:
        assert set(audit.is_in.sum(0).tolist()) <= {runs // 2}

    # What a client trains on in a run.
    for run in range(runs):
        trained = [built.rows(run, client) for client in range(clients)]
        filled = np.concatenate(trained)
        filled = filled[filled >= built.audit_start + len(audit)]
        assert len(np.unique(filled)) == len(filled)
        for client, rows in enumerate(trained):
            assert set(built.base[client].tolist()) <= set(rows.tolist())
            for j in np.flatnonzero(audit.holder == client):
                expected = audit.copies[j] if audit.is_in[run, j] else 0
                assert np.count_nonzero(rows == built.audit_start + j) == expected
            inside = audit.copies[(audit.holder == client) & audit.is_in[run]].sum()
            every = audit.copies[audit.holder == client].sum()
            assert len(rows) == len(built.base[client]) + (every if exclusion == "replace" else inside)


def test_nothing_injected_leaks_into_what_is_measured_or_held() -> None:
    """The clean twin of an audit example is neither base row nor fill-in, test nor population, in any run."""
    built = federation.build(scenario(runs=10))
    audit_ids = set(built.audit.examples.ids.tolist())
    trained = {
        int(built.store.ids[row])
        for run in range(10)
        for client in range(5)
        for row in built.rows(run, client)
        if not built.audit_start <= row < built.audit_start + len(built.audit)
    }
    assert not audit_ids & trained
    assert not (audit_ids | trained) & set(built.test.ids.tolist())
    assert not (audit_ids | trained) & set(built.population.ids.tolist())
    patterns = {row.tobytes() for row in built.references[0].inputs}
    assert not patterns & {row.tobytes() for row in built.store.inputs}


def test_rows_of_a_run_are_those_of_a_plain_loop() -> None:
    built = federation.build(scenario())
    audit, ends = built.audit, np.cumsum(built.audit.copies)
    for run in range(4):
        for client in range(5):
            expected = built.base[client].tolist()
            for j in np.flatnonzero(audit.holder == client):
                copies = int(audit.copies[j])
                if audit.is_in[run, j]:
                    expected += [built.audit_start + int(j)] * copies
                else:
                    expected += built.fill[run, ends[j] - copies : ends[j]].tolist()
            assert built.rows(run, client).tolist() == expected
    with pytest.raises(ValueError, match="read-only"):
        built.rows(0, 0)[0] = 1


def test_the_same_scenario_gives_the_same_bytes() -> None:
    assert changed(federation.build(scenario()), federation.build(scenario())) == set()
    other = changed(federation.build(scenario()), federation.build(scenario(seed=1)))
    assert {"store ids", "test inputs", "population ids", "is_in", "fill", "references random_pattern"} <= other
    assert "initial hidden1.weight" in other


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sampler": {"kind": "uniform", "size": 2}}, set()),
        ({"model": SmallCNN(channels=(4, 4))}, {"initial"}),
        ({"references": 10}, {"references"}),
        ({"runs": 6}, {"is_in", "fill"}),
        ({"partition": Dirichlet(alpha=1.0)}, {"base", "store", "fill"}),
    ],
)
def test_a_change_reaches_only_what_depends_on_it(change: dict[str, Any], expected: set[str]) -> None:
    found = {
        name if name == "is_in" else name.split()[0]
        for name in changed(federation.build(scenario()), federation.build(scenario(**change)))
    }
    assert found == expected


def test_a_further_injection_leaves_the_coins_of_the_others_alone() -> None:
    few = federation.build(scenario())
    more = federation.build(scenario(injections=(*scenario().injections, Typical(label="more"))))
    np.testing.assert_array_equal(few.audit.is_in, more.audit.is_in[:, : len(few.audit)])


@pytest.mark.parametrize("runs", [2, 4, 32])
def test_coins_are_balanced_in_every_column(runs: int) -> None:
    coins = federation._flip(runs, 50, stream(0, "coins"))
    assert coins.dtype == np.bool_
    assert coins.sum(0).tolist() == [runs // 2] * 50


def test_coins_of_one_run_are_fair() -> None:
    coins = federation._flip(1, 4000, stream(0, "coins"))
    assert coins.shape == (1, 4000)
    assert stats.binomtest(int(coins.sum()), 4000, 0.5).pvalue > 1e-3
    assert stats.binomtest(int(coins.sum()), 4000, 0.45).pvalue < 1e-3


@pytest.mark.statistical
def test_coins_are_uniform_over_balanced_columns_and_independent_over_examples() -> None:
    coins = federation._flip(4, 60000, stream(0, "coins"))
    halves = [set(pair) for pair in combinations(range(4), 2)]
    counts = np.array([sum(set(np.flatnonzero(column)) == half for column in coins.T) for half in halves])
    assert stats.chisquare(counts).pvalue > 1e-3
    # Two examples agree in a run as often as not; coins that are paired would always agree.
    agree = int((coins[0, ::2] == coins[0, 1::2]).sum())
    assert stats.binomtest(agree, 30000, 0.5).pvalue > 1e-3
    assert stats.binomtest(agree, 30000, 0.48).pvalue < 1e-3


@pytest.mark.statistical
def test_fill_ins_look_like_the_rows_of_their_holder() -> None:
    built = federation.build(
        scenario(
            runs=20,
            clients=2,
            dataset=Synthetic(rows=3000, test=10, classes=3),
            partition=Dirichlet(alpha=1.0),
            injections=(Typical(per_client=100),),
        )
    )
    labels = built.store.targets
    for client in range(2):
        own = np.bincount(labels[built.base[client]], minlength=3) / len(built.base[client])
        fill = built.fill[:, built.audit.holder == client]
        counts = np.bincount(labels[fill[fill >= 0]], minlength=3)
        assert counts.sum() == 1000
        assert stats.chisquare(counts, 1000 * own).pvalue > 1e-3
        assert stats.chisquare(counts, np.full(3, 1000 / 3)).pvalue < 1e-3


def test_fill_ins_differ_from_run_to_run() -> None:
    built = federation.build(scenario(runs=10))
    assert len({tuple(sorted(row[row >= 0].tolist())) for row in built.fill}) == 10


def test_torch_and_numpy_stay_as_they_were() -> None:
    torch.manual_seed(5)
    before, numbers = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    built = federation.build(scenario())
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(numbers, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002
    torch.manual_seed(6)
    assert changed(built, federation.build(scenario())) == set()


def test_initial_parameters_are_those_of_the_model_and_detached() -> None:
    built = federation.build(scenario())
    for name, parameter in built.model.named_parameters():
        assert torch.equal(parameter, built.initial[name])
        assert parameter.data_ptr() != built.initial[name].data_ptr()
        assert not built.initial[name].requires_grad


def test_natural_clients_hold_their_own_rows() -> None:
    asked = scenario(partition=Natural())
    built = federation.build(asked)
    data = asked.dataset.load(stream(asked.seed, "dataset"))
    assert data.natural is not None
    for client in range(5):
        assert set(data.natural[built.store.ids[built.base[client]]].tolist()) == {client}


def test_a_scenario_without_injections_is_plain_federated_learning() -> None:
    built = federation.build(scenario(injections=()))
    assert len(built.audit) == 0
    assert built.audit.kinds == ()
    assert built.references == ()
    assert built.rows(3, 2).tolist() == built.base[2].tolist()


def test_budget_adds_up_and_needs_no_network() -> None:
    assert federation.budget(scenario(model=SmallCNN(groups=3))) == {
        "test": 50,
        "population": 40,
        "audit": 15,
        "fill-ins": 35,
        "base": 310,
        "total": 450,
    }
    assert federation.budget(scenario(exclusion="remove"))["fill-ins"] == 0
    assert federation.budget(scenario(population=500))["base"] == -150


def test_a_sound_scenario_has_no_problems() -> None:
    assert federation.check(scenario()) == []


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"population": 346}, "population", ["need at most 49", "lower population to at most 345"]),
        ({"population": 399}, "population", ["population 399", "at most 345"]),
        (
            {"injections": (Typical(per_client=40),)},
            "injections",
            ["leave 400, but 445", "audit 200", "fill-ins 200", "until audit and fill-ins need at most 355"],
        ),
        (
            {"injections": (Typical(per_client=80),), "exclusion": "remove"},
            "injections",
            ["need at most 355, or lower clients"],
        ),
        ({"partition": Natural(), "clients": 7}, "clients", ["write `clients: 5`"]),
        ({"partition": IID(min_rows=100)}, "partition", ["product is at most 310"]),
        ({"partition": Dirichlet(alpha=1e-6)}, "partition", ["raise alpha"]),
        ({"model": SmallCNN(groups=3)}, "model.groups", ["do not divide"]),
        (
            {"dataset": Synthetic(rows=400, test=50, shape=(5,)), "injections": (Typical(), RandomPattern())},
            "injections[1]",
            ["write `values: uniform`"],
        ),
    ],
)
def test_problems_name_the_key_the_numbers_and_the_remedy(change: dict[str, Any], path: str, words: list[str]) -> None:
    (problem,) = federation.check(scenario(**change))
    assert problem.path == path
    for word in words:
        assert word in problem.message
    with pytest.raises((ScenarioError, ComponentError)):
        federation.build(scenario(**change))


def test_following_the_advice_works() -> None:
    assert federation.check(scenario(population=345)) == []
    assert federation.check(scenario(injections=(Typical(per_client=35),))) == []


def test_problems_that_do_not_hang_together_are_reported_together() -> None:
    found = federation.check(scenario(partition=IID(min_rows=100), model=SmallCNN(groups=3)))
    assert [problem.path for problem in found] == ["partition", "model.groups"]


class _Greedy(Typical):
    """Plans more than it announced."""

    def plan(self, *arguments: Any) -> Injected:
        planned = super().plan(*arguments)
        return Injected(examples=planned.examples, holder=planned.holder, copies=planned.copies * 2)


class _Forgetful(IID):
    """Loses a row."""

    def assign(self, *arguments: Any) -> Any:
        first, *rest = super().assign(*arguments)
        return (first[1:], *rest)


def test_components_that_break_their_promise_are_found_out() -> None:
    (problem,) = federation.check(scenario(injections=(_Greedy(),)))
    assert problem == Problem(path="injections[0]", message="plans 40 copies, but its total_copies announced 20")
    (problem,) = federation.check(scenario(partition=_Forgetful()))
    assert problem.path == "partition"
    assert "gave 5 clients 309 rows" in problem.message
