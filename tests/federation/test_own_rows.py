"""Tests of `fedmem/federation/own_rows.py`: what is set aside for a client with one owner's rows is its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy import stats

import fedmem
from fedmem.contracts.arrays import IntArray
from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.data import ClientData, Dataset, Space
from fedmem.contracts.federation import Federation
from fedmem.contracts.reserve import Reserve
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError
from fedmem.federation import build
from fedmem.federation.layout import _lay_out
from fedmem.injections.adversarial import Adversarial
from fedmem.injections.corrupted import Corrupted
from fedmem.injections.isolated import Isolated
from fedmem.injections.label_noise import LabelNoise
from fedmem.injections.mislabelled import Mislabelled
from fedmem.injections.near_duplicate import NearDuplicate
from fedmem.injections.poison import Poison
from fedmem.injections.random_pattern import RandomPattern
from fedmem.injections.rare_subgroup import RareSubgroup
from fedmem.injections.typical import Typical
from fedmem.injections.unique_feature import UniqueFeature
from fedmem.partitions.feature_skew import FeatureSkew
from fedmem.partitions.flower import Flower
from fedmem.partitions.natural import Natural
from fedmem.scenario.scenario import Scenario
from tests.federation.build_helpers import scenario
from tests.tiny import tiny

ALL_KINDS = (
    RandomPattern(per_client=2),
    Typical(per_client=1, copies=2),
    Mislabelled(per_client=1, clients={"count": 2}),
    Corrupted(per_client=1, clients=(0, 3)),
    NearDuplicate(per_client=1, multiplicity=3, unmasked=1),
    LabelNoise(rate=0.02),
    Adversarial(per_client=1, reference_rows=30),
    UniqueFeature(images=3),
    Poison(per_client=1, victim=1, target=0),
    RareSubgroup(per_client=2, of_class=2, clients={"count": 2}),
    Isolated(per_client=1),
)


def natural(**changes: Any) -> Scenario:
    """Five owners, with a partition by owner."""
    return scenario(**{"partition": Natural(), "dataset": Synthetic(rows=900, test=50, groups=5), **changes})


def owners(asked: Scenario) -> dict[int, int]:
    """The owner of each training row, by id."""
    data = build.load(asked)
    assert data.natural is not None
    return dict(zip(data.train.ids.tolist(), data.natural.tolist(), strict=True))


def assert_own(built: Federation, owner: dict[int, int]) -> None:
    """Base rows, real audit rows, what carries a canary, and replacement rows are of the client that trains on them."""
    ids, audit = built.store.ids, built.audit
    for client, rows in enumerate(built.base):
        assert len(rows) >= 1
        assert {owner[row] for row in ids[rows].tolist()} == {client}
    pairs = [(audit.examples.ids, audit.owner), (ids[built.trained_rows], audit.owners)]
    used = built.replacement >= 0
    pairs.append((ids[built.replacement[used]], np.broadcast_to(audit.owners, used.shape)[used]))
    for rows, clients in pairs:
        real = rows >= 0
        assert [owner[row] for row in rows[real].tolist()] == clients[real].tolist()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("exclusion", ["replace", "remove"])
def test_real_rows_of_all_kinds_are_their_clients_own(seed: int, exclusion: str) -> None:
    asked = natural(seed=seed, injections=ALL_KINDS, exclusion=exclusion, population=seed * 10)
    built = build.build(asked)
    assert_own(built, owners(asked))
    assert built.foreign_rows == {}
    real = np.concatenate([built.store.ids[built.store.ids >= 0], built.test.ids, built.population.ids])
    assert len(np.unique(real)) == len(real)
    places = ("test", "population", "audit", "replacements", "reserved_rows", "base")
    assert sum(built.counts[name] for name in places) == built.counts["total"] == 950
    assert len(real) == 950 - built.counts["reserved_rows"] - 30, "the reference rows of adversarial are nobody's"
    assert built.counts["base"] == built.audit_start
    assert dict(built.counts) == build.budget(asked)
    assert set(built.audit.is_in.sum(axis=0).tolist()) == {2}
    for run in range(4):
        stand_ins = built.replacement[run][built.replacement[run] >= 0]
        stand_ins = stand_ins[~np.isin(stand_ins, built.trained_rows)]
        assert len(np.unique(stand_ins)) >= len(stand_ins) - 3, "but for copies of the twins of isolated"
    assert 2 not in built.store.targets[np.concatenate(list(built.base))], "the class of rare_subgroup"


@pytest.mark.parametrize(
    "partition",
    [FeatureSkew(base=Natural()), Flower(partitioner="NaturalIdPartitioner", arguments={"partition_by": "natural"})],
)
def test_partitions_around_natural_keep_own_rows_too(partition: Any) -> None:
    asked = natural(partition=partition, injections=(Typical(per_client=3),))
    built = build.build(asked)
    owner = owners(asked)
    own = [{owner[row] for row in built.store.ids[rows].tolist()} for rows in built.base]
    assert all(len(part) == 1 for part in own)
    audit = [owner[row] for row in built.audit.examples.ids.tolist()]
    assert audit == [own[client].copy().pop() for client in built.audit.owner.tolist()]


def test_rows_of_one_client_and_label_are_exchangeable() -> None:
    """Over seeds each row is as often an audit example, a replacement row or a base row as any other of its label."""
    asked = natural(
        dataset=Synthetic(rows=60, test=10, groups=2, classes=2),
        clients=2,
        injections=(Typical(per_client=4), Mislabelled(per_client=2)),
        population=0,
        runs=2,
    )
    data = build.load(asked)
    assert data.natural is not None
    purposes = np.zeros((3, len(data.train)))
    position = np.full(data.train.ids.max() + 1, -1)
    position[data.train.ids] = np.arange(len(data.train))
    seeds = 300
    for seed in range(seeds):
        plan = _lay_out(asked.model_copy(update={"seed": seed}), data)
        purposes[0, position[plan.audit.examples.ids]] += 1
        purposes[1, position[plan.reserve.ids]] += 1
        purposes[2, plan.base.rows] += 1
    assert (purposes.sum(axis=0) == seeds).all()
    for owner in range(2):
        for label in range(2):
            rows = (data.natural == owner) & (data.train.labels == label)
            for counts in purposes[:, rows]:
                # Of n rows a fixed number is drawn or nearly so: chi-square bounds what that leaves.
                assert stats.chisquare(counts).pvalue > 1e-4
    chances = purposes.sum(axis=1) / seeds / len(data.train)
    np.testing.assert_allclose(chances, [12 / 60, 12 / 60, 36 / 60])


def test_unmasked_copies_need_no_replacement_rows() -> None:
    asked = natural(injections=(Typical(per_client=1, copies=4, unmasked=3),))
    assert build.budget(asked)["replacements"] == 5
    built = build.build(asked)
    assert_own(built, owners(asked))


def of_three_owners(folder: Path, rows: int) -> Scenario:
    """Three owners, of whom the second has so many rows and needs seven."""
    count = 54 + rows
    inputs = np.random.default_rng(0).random((count, 3), dtype=np.float32)
    arrays: dict[str, Any] = {
        "inputs": inputs,
        "targets": np.arange(count) % 2,
        "clients": np.repeat([10, 20, 30], [30, rows, 24]),
    }
    arrays |= {"test_inputs": inputs[:5], "test_targets": np.zeros(5, np.int64)}
    np.savez(folder / "few.npz", **arrays)
    return tiny(
        clients=3,
        population=0,
        dataset={"kind": "npz", "path": str(folder / "few.npz")},
        partition={"kind": "natural"},
        injections=[{"kind": "typical", "per_client": 2, "copies": 2}],
        sampler={"kind": "everyone"},
    )


def test_a_client_with_too_few_rows_is_named(tmp_path: Path) -> None:
    asked = of_three_owners(tmp_path, 6)
    (problem,) = build.check(asked)
    assert problem.path == "injections"
    assert "client 1 (20) has 6 rows" in problem.message
    assert "7 are needed: 2 for audit examples, 4 replacement rows and one to train on" in problem.message
    assert "exclusion: remove" in problem.message
    assert not build.check(asked.model_copy(update={"exclusion": "remove"}))


def test_a_client_with_just_enough_rows_keeps_one(tmp_path: Path) -> None:
    built = build.build(of_three_owners(tmp_path, 7))
    assert [len(rows) for rows in built.base] == [24, 1, 18]


@dataclass(frozen=True, kw_only=True)
class Greedy(Typical):
    """Draws without saying for whom."""

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        rows = reserve.take_like(clients[0].examples.labels, len(clients) * self.per_client, rng)
        return self._place(rows, clients)


@dataclass(frozen=True, kw_only=True)
class Declared(Greedy):
    """The same, and says so."""

    foreign_rows: ClassVar[bool] = True


def test_foreign_rows_are_counted_or_refused() -> None:
    (problem,) = build.check(natural(injections=(Greedy(per_client=4),)))
    assert problem.path == "injections[0]"
    assert "foreign_rows = True" in problem.message
    asked = natural(injections=(Declared(per_client=4, label="greedy"),))
    built, owner = build.build(asked), owners(asked)
    pairs = zip(built.audit.examples.ids.tolist(), built.audit.owner.tolist(), strict=True)
    foreign = sum(owner[row] != client for row, client in pairs)
    assert built.foreign_rows == {"greedy": foreign}
    assert foreign > 8
    assert build.build(scenario(injections=(Greedy(per_client=4),))).foreign_rows is None


class OneLabelEach:
    """Client k holds the rows of label k, as if that were its owner."""

    by_owner = True

    def assign(self, data: Dataset, rows: IntArray, clients: int, rng: np.random.Generator) -> list[IntArray]:
        return [rows[data.train.labels[rows] == client] for client in range(clients)]


def test_classes_that_owners_lack_come_from_others() -> None:
    """Labels are owners: client 1 has only class 1, and the others none of it."""
    fields: dict[str, Any] = {
        "clients": 3,
        "dataset": Synthetic(rows=300, test=10, classes=3),
        "partition": OneLabelEach(),
    }
    built = build.build(scenario(**fields, injections=(Poison(per_client=3, victim=1, target=0),)))
    assert built.foreign_rows == {"poison": 6}
    with pytest.raises(ComponentError, match="client 1 has rows of reserved classes only"):
        build.build(scenario(**fields, injections=(RareSubgroup(per_client=3, of_class=1, clients=(0, 2)),)))


def test_own_rows_of_a_class_come_before_foreign_ones() -> None:
    asked = natural(
        injections=(RareSubgroup(per_client=30, of_class=1, clients=(0,)),),
        dataset=Synthetic(rows=300, test=50, groups=5, classes=3),
    )
    built, owner = build.build(asked), owners(asked)
    data = build.load(asked)
    assert data.natural is not None
    outside = ~np.isin(data.train.ids, built.population.ids)
    available = int(np.count_nonzero(outside & (data.natural == 0) & (data.train.labels == 1)))
    own = sum(owner[row] == 0 for row in built.audit.examples.ids.tolist())
    assert own == available < 30
    assert built.foreign_rows == {"rare_subgroup": 30 - own}


def test_marked_images_of_a_client_share_a_label() -> None:
    built = build.build(natural(injections=(UniqueFeature(images=5, per_client=2),)))
    labels = built.store.targets[built.trained_rows].reshape(-1, 5)
    assert (labels == labels[:, :1]).all()
    assert len(np.unique(labels)) > 1


def npz(folder: Path) -> Path:
    """Four owners of 60 rows in five groups; owner k calls group g (g + k) mod 5, so that others' rows are odd ones."""
    rng = np.random.default_rng(0)
    group, owner = np.arange(240) % 5, np.repeat(np.arange(4), 60)
    # What tells a row from others of its group is in columns of their own, so that it can be memorised.
    inputs = np.concatenate([np.eye(5)[group], 0.4 * rng.random((240, 40))], axis=1).astype(np.float32)
    path = folder / "owners.npz"
    np.savez(path, inputs=inputs, targets=(group + owner) % 5, clients=owner)
    return path


@dataclass(frozen=True, kw_only=True)
class Undeclared:
    """The same clients, whose partition does not say that they are owners: the reserve is then drawn from all rows."""

    by_owner: ClassVar[bool] = False

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> Sequence[IntArray]:
        return Natural().assign(data, rows, num_clients, rng)


def local_memorisation(folder: Path, **changes: Any) -> tuple[float, float]:
    """Of typical rows at their owning client, by right or wrong and by probability."""
    asked = {
        "runs": 8,
        "rounds": 2,
        "clients": 4,
        "population": 0,
        "dataset": {"kind": "npz", "path": str(npz(folder)), "test": 20},
        "partition": {"kind": "natural"},
        "model": {"kind": "mlp", "hidden": [16]},
        "injections": [{"kind": "typical", "per_client": 4}],
        "sampler": {"kind": "everyone"},
        "client": {"kind": "sgd", "lr": 1.0, "epochs": 20, "batch_size": 8},
        "observe": {"every": 2, "levels": ["local", "global"]},
        "estimators": [{"kind": "memorisation"}],
    }
    measured = fedmem.read(fedmem.run(tiny(**asked | changes), out=folder)).measurements
    found = measured[
        (measured.metric == "memorisation")
        & (measured.scope == "summary")
        & (measured.subject == "typical")
        & (measured.level == "local")
        & (measured.place == "owner")
    ]
    by_probability = found.statistic == "probability"
    return float(found[~by_probability].value.iloc[0]), float(found[by_probability].value.iloc[0])


def test_own_rows_that_are_not_fitted_are_not_memorised(tmp_path: Path) -> None:
    client = {"kind": "sgd", "lr": 1e-30, "epochs": 1, "batch_size": 8}
    assert local_memorisation(tmp_path, client=client) == (0.0, 0.0)


def test_only_foreign_rows_are_memorised(tmp_path: Path) -> None:
    """Leaving one of many like rows out changes nothing; the same rows on clients that contradict them are outliers."""
    assert np.abs(local_memorisation(tmp_path)).max() < 0.02
    undeclared = {"kind": "tests.federation.test_own_rows:Undeclared"}
    assert min(local_memorisation(tmp_path, partition=undeclared)) > 0.3
