"""A federation loses no row, leaks no row, and each step draws from its own stream."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmem.contracts.audit_set import FOREVER, InjectionPlan
from fedmem.datasets.npz import Npz
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError, Problem, ScenarioError
from fedmem.federation import build
from fedmem.injections.poison import Poison
from fedmem.injections.random_pattern import RandomPattern
from fedmem.injections.rare_subgroup import RareSubgroup
from fedmem.injections.typical import Typical
from fedmem.modalities.tables import Tables
from fedmem.models.small_cnn import SmallCNN
from fedmem.models.tabular_mlp import TabularMLP
from fedmem.partitions.dirichlet import Dirichlet
from fedmem.partitions.flower import Flower
from fedmem.partitions.iid import IID
from fedmem.partitions.natural import Natural
from fedmem.scenario import catalogue
from fedmem.seeding import stream
from tests.federation.build_helpers import changed, scenario

FEWEST: dict[str, dict[str, Any]] = {
    "adversarial": {"reference_rows": 10},
    "near_duplicate": {"multiplicity": 3},
    "label_noise": {"rate": 0.01},
}
"""Fields that let many injections fit into few rows."""

NO_PICTURES = {"random_row", "random_tokens", "personal", "secret", "existing_secret"}
HELD = {"existing"}  # it takes rows of clients, see `test_held_rows.py`
AIMED = {"privacy_poison"}  # it needs the targets of another, see `test_aims.py`
OWN_FILL_INS = {"isolated"}  # an out example is replaced by its twin of another class, not by a row of the reserve
planned_injections = st.lists(
    st.tuples(
        st.sampled_from(
            [kind for kind in catalogue.kinds("injection") if kind not in NO_PICTURES | HELD | AIMED | OWN_FILL_INS]
        ),
        st.integers(1, 2),
        st.integers(1, 2),
        st.sampled_from(["all", (0,), {"share": 0.5}, {"count": 1}]),
        st.sampled_from([(None, None), (2, None), (None, 1), (2, 3), (1, 9)]),
    ),
    max_size=4,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**31),
    runs=st.sampled_from([1, 2, 4, 10]),
    clients=st.integers(1, 6),
    population=st.integers(0, 60),
    exclusion=st.sampled_from(["replace", "remove"]),
    partition=st.sampled_from([IID(), Dirichlet(alpha=1.0, min_rows=1)]),
    planned=planned_injections,
)
def test_every_row_has_one_place(
    seed: int, runs: int, clients: int, population: int, exclusion: str, partition: IID | Dirichlet, planned: list[Any]
) -> None:
    made = [
        catalogue.load("injection", kind)(
            per_client=count,
            copies=copies,
            clients=who,
            start=window[0],
            stop=window[1],
            label=f"kind{i}",
            **FEWEST.get(kind, {}),
        )
        for i, (kind, count, copies, who, window) in enumerate(planned)
    ]
    asked = scenario(
        seed=seed,
        rounds=3,
        runs=runs,
        clients=clients,
        population=population,
        exclusion=exclusion,
        partition=partition,
        dataset=Synthetic(rows=1200, test=50),
        injections=tuple(made),
    )
    built = build.build(asked)
    audit, store = built.audit, built.store

    # Disjoint, and complete over the data set but for what is kept from everybody.
    everywhere = np.concatenate([store.ids[store.ids >= 0], built.test.ids, built.population.ids])
    assert len(np.unique(everywhere)) == len(everywhere)
    unseen = built.counts["reserved_rows"] + sum(getattr(injection, "reference_rows", 0) for injection in made)
    assert len(everywhere) == 1250 - unseen
    places = ("test", "population", "audit", "replacements", "reserved_rows", "base")
    assert sum(built.counts[name] for name in places) == built.counts["total"] == 1250
    assert sum(len(rows) for rows in built.base) == built.counts["base"] == built.audit_start
    np.testing.assert_array_equal(np.concatenate(built.base), np.arange(built.audit_start))
    np.testing.assert_array_equal(audit.examples.ids, store.ids[built.audit_start : built.audit_start + len(audit)])
    generated = audit.examples.ids[audit.examples.ids < 0]
    assert len(np.unique(generated)) == len(generated)

    # Holders, copies and windows are as asked.
    for i, injection in enumerate(made):
        mine = audit.kind == f"kind{i}"
        assert set(audit.injection[mine].tolist()) == {i}
        assert len(np.unique(audit.owner[mine])) == injection._num_owners(clients)
        assert audit.copies[mine].sum() == injection.total_copies(clients, 1200)
        assert set(audit.start[mine].tolist()) == {0 if injection.start in (None, 1) else injection.start}
        assert set(audit.stop[mine].tolist()) == {FOREVER if injection.stop is None else injection.stop}

    # Coins are balanced.
    assert audit.is_in.shape == (runs, len(audit))
    if runs > 1:
        assert set(audit.is_in.sum(0).tolist()) <= {runs // 2}

    # A reserved class is held under coins only.
    for injection in made:
        if getattr(injection, "exclusive", False):
            rows = np.concatenate([*built.base, built.replacement[built.replacement >= 0]])
            assert injection.reserved_class not in store.targets[rows]

    # What a client trains on in a round, against a plain loop.
    ends = np.cumsum(audit.copies)
    for run in range(runs):
        stand_ins = built.replacement[run][built.replacement[run] >= 0]
        assert len(np.unique(stand_ins)) == len(stand_ins)
        assert np.all(stand_ins >= built.audit_start + len(audit))
        assert not set(stand_ins.tolist()) & set(built.trained_rows.tolist())
        for round_number in (0, 1, 2, 3):
            for client in range(clients):
                expected = built.base[client].tolist()
                for j in np.flatnonzero(audit.owner == client):
                    slots = slice(ends[j] - audit.copies[j], ends[j])
                    inside = audit.is_in[run, j] and audit.start[j] <= round_number <= audit.stop[j]
                    stand_for = (built.trained_rows if inside else built.replacement[run])[slots]
                    assert inside or exclusion == "remove" or (stand_for >= 0).all()
                    assert inside or exclusion == "replace" or (stand_for < 0).all()
                    expected += stand_for[stand_for >= 0].tolist()
                rows = built.rows(run, client, round_number)
                assert rows.tolist() == expected
                if exclusion == "replace":
                    assert len(rows) == len(built.base[client]) + audit.copies[audit.owner == client].sum()


@settings(max_examples=20, deadline=None)
@given(start=st.integers(1, 4), length=st.integers(0, 3), seed=st.integers(0, 99))
def test_outside_its_window_an_example_leaves_no_trace(start: int, length: int, seed: int) -> None:
    """What is trained on there is what would be trained on had every coin fallen on out."""
    built = build.build(
        scenario(seed=seed, rounds=6, injections=(Typical(copies=2, start=start, stop=start + length), RandomPattern()))
    )
    windowed = np.flatnonzero(built.audit.kind == "typical")
    rows = set((built.audit_start + windowed).tolist())
    for round_number in range(7):
        seen = {
            row for run in range(4) for client in range(5) for row in built.rows(run, client, round_number).tolist()
        }
        assert bool(rows & seen) == (
            max(start, 2) <= round_number <= start + length or (start == 1 and round_number <= 1)
        )


def test_a_window_over_all_rounds_changes_nothing() -> None:
    plain = build.build(scenario(injections=(Typical(),)))
    assert changed(plain, build.build(scenario(injections=(Typical(start=1, stop=2),)))) == {"stop"}
    assert changed(plain, build.build(scenario(injections=(Typical(start=2),)))) == {"start", "fill"}


def test_rounds_with_the_same_windows_share_their_rows() -> None:
    built = build.build(scenario(rounds=9, injections=(Typical(start=4, stop=6),)))
    assert built.rows(0, 0, 1) is built.rows(0, 0, 9)
    assert built.rows(0, 0, 4) is built.rows(0, 0, 6)
    assert built.rows(0, 0, 3).tolist() != built.rows(0, 0, 4).tolist()


def test_two_injections_of_one_class_share_its_rows() -> None:
    both = (RareSubgroup(of_class=1, per_client=5), Poison(victim=1, target=0, per_client=2))
    built = build.build(scenario(injections=both))
    real = built.audit.examples.ids
    assert len(np.unique(real)) == len(real) == 15
    (problem,) = build.check(scenario(injections=(both[0], Poison(victim=1, target=0, per_client=30))))
    assert problem.path == "injections[1]"
    assert "155 rows of class 1 are wanted, but outside the population there are" in problem.message


def test_injected_rows_are_in_no_other_set() -> None:
    """The clean twin of an audit example is neither base row nor fill-in, test nor population, in any run."""
    built = build.build(scenario(runs=10))
    audit_ids = set(built.audit.examples.ids.tolist())
    trained = {
        int(built.store.ids[row])
        for run in range(10)
        for client in range(5)
        for row in built.rows(run, client, 1)
        if not built.audit_start <= row < built.audit_start + len(built.audit)
    }
    assert not audit_ids & trained
    assert not (audit_ids | trained) & set(built.test.ids.tolist())
    assert not (audit_ids | trained) & set(built.population.ids.tolist())
    patterns = {row.tobytes() for row in built.references[0].inputs}
    assert not patterns & {row.tobytes() for row in built.store.inputs}


def test_rows_of_a_run_are_those_of_a_plain_loop() -> None:
    built = build.build(scenario())
    audit, ends = built.audit, np.cumsum(built.audit.copies)
    for run in range(4):
        for client in range(5):
            expected = built.base[client].tolist()
            for j in np.flatnonzero(audit.owner == client):
                copies = int(audit.copies[j])
                if audit.is_in[run, j]:
                    expected += [built.audit_start + int(j)] * copies
                else:
                    expected += built.replacement[run, ends[j] - copies : ends[j]].tolist()
            assert built.rows(run, client, 1).tolist() == expected
    with pytest.raises(ValueError, match="read-only"):
        built.rows(0, 0, 1)[0] = 1


def test_the_same_scenario_gives_the_same_bytes() -> None:
    assert changed(build.build(scenario()), build.build(scenario())) == set()
    other = changed(build.build(scenario()), build.build(scenario(seed=1)))
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
        ({"rounds": 3}, set()),
    ],
)
def test_a_change_reaches_only_what_depends_on_it(change: dict[str, Any], expected: set[str]) -> None:
    found = {
        name if name == "is_in" else name.split()[0]
        for name in changed(build.build(scenario()), build.build(scenario(**change)))
    }
    assert found == expected


def test_further_injection_leaves_the_coins_of_others_unchanged() -> None:
    few = build.build(scenario())
    more = build.build(scenario(injections=(*scenario().injections, Typical(label="more"))))
    np.testing.assert_array_equal(few.audit.is_in, more.audit.is_in[:, : len(few.audit)])


def test_torch_and_numpy_stay_as_they_were() -> None:
    torch.manual_seed(5)
    before, numbers = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    built = build.build(scenario())
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(numbers, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002
    torch.manual_seed(6)
    assert changed(built, build.build(scenario())) == set()


def test_natural_clients_hold_their_own_rows() -> None:
    asked = scenario(partition=Natural())
    built = build.build(asked)
    data = asked.dataset.load(stream(asked.seed, "dataset"))
    assert data.natural is not None
    for client in range(5):
        assert set(data.natural[built.store.ids[built.base[client]]].tolist()) == {client}


def test_scenario_without_injections_has_no_audit_examples() -> None:
    built = build.build(scenario(injections=()))
    assert len(built.audit) == 0
    assert built.audit.kinds == ()
    assert built.references == ()
    assert built.rows(3, 2, 1).tolist() == built.base[2].tolist()


def test_a_sound_scenario_has_no_problems() -> None:
    assert build.check(scenario()) == []


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"population": 346}, "population", ["need at most 49", "lower population to at most 345"]),
        ({"population": 399}, "population", ["population 399", "at most 345"]),
        (
            {"injections": (Typical(per_client=40),)},
            "injections",
            ["leave 400, but 445", "audit 200", "replacement rows 200", "need at most 355"],
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
    (problem,) = build.check(scenario(**change))
    assert problem.path == path
    for word in words:
        assert word in problem.message
    with pytest.raises((ScenarioError, ComponentError)):
        build.build(scenario(**change))


def test_following_the_advice_works() -> None:
    assert build.check(scenario(population=345)) == []
    assert build.check(scenario(injections=(Typical(per_client=35),))) == []


def test_independent_problems_are_reported_together() -> None:
    found = build.check(scenario(partition=IID(min_rows=100), model=SmallCNN(groups=3)))
    assert [problem.path for problem in found] == ["partition", "model.groups"]


class _Greedy(Typical):
    """Plans more than it announced."""

    def plan(self, *arguments: Any) -> InjectionPlan:
        planned = super().plan(*arguments)
        return InjectionPlan(examples=planned.examples, owner=planned.owner, copies=planned.copies * 2)


class _Forgetful(IID):
    """Loses a row."""

    def assign(self, *arguments: Any) -> Any:
        first, *rest = super().assign(*arguments)
        return (first[1:], *rest)


def test_components_that_break_their_contract_are_reported() -> None:
    (problem,) = build.check(scenario(injections=(_Greedy(),)))
    assert problem == Problem(path="injections[0]", message="plans 40 copies, but its total_copies announced 20")
    (problem,) = build.check(scenario(partition=_Forgetful()))
    assert problem.path == "partition"
    assert "gave 5 clients 309 rows" in problem.message


def test_rows_left_out_by_the_partition_are_counted_and_unused() -> None:
    shards = {"num_shards_per_partition": 1, "shard_size": 30}
    built = build.build(scenario(partition=Flower(partitioner="ShardPartitioner", arguments=shards, leave_out=True)))
    assert [len(rows) for rows in built.base] == [30] * 5
    whole = build.build(scenario())
    assert built.counts["base"] == 150
    assert built.counts["left out"] == whole.counts["base"] - 150 > 0
    assert sum(count for name, count in built.counts.items() if name != "total") == built.counts["total"]
    held = set(built.store.ids[: built.audit_start].tolist())
    assert held < set(whole.store.ids[: whole.audit_start].tolist())
    # Only who holds what has changed.
    np.testing.assert_array_equal(built.audit.is_in, whole.audit.is_in)
    np.testing.assert_array_equal(built.population.ids, whole.population.ids)


def test_only_a_partition_that_declares_it_may_leave_rows_out() -> None:
    silent = Flower(partitioner="ShardPartitioner", arguments={"num_shards_per_partition": 1, "shard_size": 30})
    with pytest.raises(ComponentError, match="leaves out") as caught:
        build.build(scenario(partition=silent))
    assert caught.value.path == "partition.leave_out"

    class Forgetful(IID):
        def assign(self, data: Any, rows: Any, num_clients: int, rng: Any) -> Any:
            return tuple(part[1:] for part in super().assign(data, rows, num_clients, rng))

    with pytest.raises(ComponentError, match="must hold each of"):
        build.build(scenario(partition=Forgetful()))

    class Greedy(Forgetful):
        leave_out = True

        def assign(self, data: Any, rows: Any, num_clients: int, rng: Any) -> Any:
            parts = super().assign(data, rows, num_clients, rng)
            return (*parts[:-1], np.sort(np.concatenate([parts[-1], parts[0][:1]])))

    with pytest.raises(ComponentError, match="must hold each of"):
        build.build(scenario(partition=Greedy()))


def test_tabular_model_gets_the_columns_and_refuses_images() -> None:
    found = build.check(scenario(model=TabularMLP()))
    assert [problem.path for problem in found] == ["model.kind"]
    assert "no table" in found[0].message

    class Table(Synthetic):
        def load(self, rng: np.random.Generator) -> Any:
            return replace(super().load(rng), modality=Tables(blocks=(1, 4, 1)))

    built = build.build(
        scenario(dataset=Table(rows=400, test=50, shape=(6,)), model=TabularMLP(hidden=(4,)), injections=())
    )
    assert built.initial["embedded.block1.weight"].shape == (4, 4)
    assert built.model(torch.from_numpy(built.store.inputs[:3])).shape == (3, built.num_classes)


def test_clients_have_the_names_of_their_owners_and_only_then(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hospitals = np.array(["York", "Bath", "Ely", "Hull", "Leeds"])[np.arange(60) % 5]
    np.savez(tmp_path / "mine.npz", x=rng.random((60, 3)), y=np.arange(60) % 3, clients=hospitals)
    fields: dict[str, Any] = {"dataset": Npz(path=str(tmp_path / "mine.npz")), "injections": (), "population": 0}
    named = build.build(scenario(**fields, partition=Natural()))
    assert named.client_names == ("Bath", "Ely", "Hull", "Leeds", "York")
    file_rows = named.store.ids[named.base[4]]
    assert (hospitals[file_rows] == "York").all()
    assert build.build(scenario(**fields, partition=IID())).client_names == ()
