"""Label marginals and sizes of each partition, and what happens where there is no answer."""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset, Examples, FeatureShift, Partition
from fedmem.contracts.ragged import Ragged
from fedmem.datasets.digits import Digits
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError
from fedmem.modalities.undescribed import modality_of_shape
from fedmem.partitions import dirichlet
from fedmem.partitions._sizes import apportion
from fedmem.partitions.dirichlet import Dirichlet
from fedmem.partitions.feature_skew import FeatureSkew
from fedmem.partitions.flower import Flower
from fedmem.partitions.iid import IID
from fedmem.partitions.inner_dirichlet import InnerDirichlet
from fedmem.partitions.natural import Natural
from fedmem.partitions.pathological import Pathological
from fedmem.partitions.quantity_skew import QuantitySkew
from fedmem.partitions.shards import Shards


def labelled(targets: IntArray) -> Dataset:
    """A data set that is nothing but labels."""
    rows = Examples(inputs=np.zeros((len(targets), 1), np.float32), targets=targets, ids=np.arange(len(targets)))
    return Dataset(
        train=rows,
        test=rows.take(np.arange(0)),
        num_classes=int(targets.max()) + 1,
        modality=modality_of_shape(rows.inputs.shape[1:]),
    )


def shares(partition: Partition, targets: IntArray, clients: int, seed: int) -> np.ndarray:
    """(clients, classes) share of each class that each client got."""
    data = labelled(targets)
    parts = partition.assign(data, np.arange(len(targets)), clients, np.random.default_rng(seed))
    counts = np.stack([np.bincount(targets[part], minlength=data.num_classes) for part in parts])
    return counts / np.bincount(targets, minlength=data.num_classes)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    clients=st.integers(1, 12),
    alpha=st.floats(0.3, 100),
    min_rows=st.integers(1, 5),
    reserve=st.integers(0, 50),
)
def test_dirichlet_loses_nothing_and_repeats_itself(
    seed: int, clients: int, alpha: float, min_rows: int, reserve: int
) -> None:
    rng = np.random.default_rng(seed)
    data = labelled(rng.integers(6, size=400))
    rows = np.sort(rng.choice(400, size=400 - reserve, replace=False))
    partition = Dirichlet(alpha=alpha, min_rows=min_rows)
    parts, again = (partition.assign(data, rows, clients, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), rows)
    assert min(len(part) for part in parts) >= min_rows
    for one, other in zip(parts, again, strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), clients=st.integers(1, 30), count=st.integers(30, 200))
def test_iid_is_complete_and_even(seed: int, clients: int, count: int) -> None:
    data = labelled(np.zeros(count, np.int64))
    parts = IID().assign(data, np.arange(count), clients, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(count))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_large_alpha_gives_everyone_the_global_labels() -> None:
    """The last client and the last class too: a prior that is used up or reset on the way shows here."""
    targets = np.repeat(np.arange(5), [1000, 2000, 500, 1500, 3000])
    assert shares(Dirichlet(alpha=1e6), targets, 10, 0) == pytest.approx(np.full((10, 5), 0.1), abs=0.005)


@pytest.mark.parametrize("partition", [Dirichlet(alpha=1e6), IID()])
def test_rows_of_a_class_are_picked_at_random(partition: Dirichlet | IID) -> None:
    """The order of the file may mean something (writers, time) and must not decide who holds a row."""
    data = labelled(np.zeros(1000, np.int64))
    for part in partition.assign(data, np.arange(1000), 4, np.random.default_rng(0)):
        assert stats.kstest(part, "uniform", args=(0, 1000)).pvalue > 1e-3


def test_small_alpha_gives_a_class_to_few() -> None:
    targets = np.repeat(np.arange(10), 500)
    largest = shares(Dirichlet(alpha=0.05), targets, 10, 0).max(0).mean()
    assert largest > 0.6 > 0.2 > shares(Dirichlet(alpha=100.0), targets, 10, 0).max(0).mean()


@pytest.mark.statistical
def test_dirichlet_has_the_moments_of_a_dirichlet_for_every_client_and_class() -> None:
    """Mean 1/N and variance (1/N)(1-1/N)/(N alpha+1) whichever the client, the class and its size."""
    clients, alpha, repetitions = 5, 0.7, 3000
    targets = np.repeat(np.arange(4), [400, 100, 800, 200])
    draws = np.stack(
        [shares(Dirichlet(alpha=alpha, min_rows=1), targets, clients, seed) for seed in range(repetitions)]
    )
    variance = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    error = 4.5 * np.sqrt(variance / repetitions)
    assert np.abs(draws.mean(0) - 1 / clients).max() < error
    assert draws.var(0) == pytest.approx(np.full((clients, 4), variance), rel=0.12)
    # The same bounds reject another concentration, and boundaries that are rounded down.
    wrong = (1 / clients) * (1 - 1 / clients) / (clients * 1.0 + 1)
    assert not np.allclose(draws.var(0), wrong, rtol=0.12)
    few = np.repeat(np.arange(4), 10)
    floored = []
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        bounds = np.floor(np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * 10)
        floored.append((10 - bounds[-1]) / 10)
    assert np.mean(floored) - 1 / clients > error
    rounded = np.stack([shares(Dirichlet(alpha=alpha, min_rows=1), few, clients, s) for s in range(repetitions)])
    assert np.abs(rounded.mean(0) - 1 / clients).max() < 2 * error


@pytest.mark.statistical
def test_relabelling_the_classes_changes_nothing_in_distribution() -> None:
    """Concentration of a class must not depend on whether it is split first or last."""
    targets = np.repeat(np.arange(8), 100)
    squares = [(shares(Dirichlet(alpha=0.2, min_rows=1), targets, 6, seed) ** 2).sum(0) for seed in range(1000)]
    mean, error = np.mean(squares, axis=0), np.std(squares, axis=0) / np.sqrt(1000)
    assert np.abs(mean - mean.mean()).max() < 4 * error.max()


def test_dirichlet_gives_up_after_bounded_draws_and_says_what_to_change() -> None:
    data = labelled(np.repeat(np.arange(10), 20))
    with pytest.raises(ComponentError, match=r"1000 draws of alpha 0\.02 .*20 clients 5 of 200 rows.*raise alpha"):
        Dirichlet(alpha=0.02, min_rows=5).assign(data, np.arange(200), 20, np.random.default_rng(0))


def test_dirichlet_gives_up_sooner_where_a_draw_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dirichlet, "_DRAWN", 200 * 30)
    data = labelled(np.repeat(np.arange(10), 20))
    with pytest.raises(ComponentError, match=r"in 30 draws"):
        Dirichlet(alpha=0.02, min_rows=5).assign(data, np.arange(200), 20, np.random.default_rng(0))


@pytest.mark.parametrize(
    "partition",
    [
        Dirichlet(alpha=50.0, min_rows=1),
        IID(),
        InnerDirichlet(min_rows=1, sigma=0.5),
        Natural(),
        Pathological(classes=2),
        QuantitySkew(law="power", alpha=0.1, min_rows=1),
        Shards(per_client=2),
    ],
)
def test_fifty_thousand_clients_are_dealt_out_at_once(partition: Any) -> None:
    """A pass over all rows for each client would take hours here."""
    clients, rows = 50_000, 400_000
    rng = np.random.default_rng(0)
    data = labelled(rng.integers(10, size=rows))
    data = replace(data, natural=rng.permutation(np.arange(rows) % clients))
    parts = partition.assign(data, np.arange(rows), clients, rng)
    assert isinstance(parts, Ragged)
    assert len(parts) == clients
    assert parts.sizes.min() >= 1
    np.testing.assert_array_equal(np.sort(parts.rows), np.arange(rows))
    inside = np.ones(rows, dtype=bool)
    inside[parts.starts[:-1]] = False
    assert (np.diff(parts.rows, prepend=0)[inside] > 0).all(), "each part is sorted"


@pytest.mark.parametrize("partition", [Dirichlet(min_rows=10), IID(min_rows=10)])
def test_fewer_rows_than_the_minimum_asks_for(partition: Dirichlet | IID) -> None:
    data = labelled(np.arange(10) % 2)
    with pytest.raises(ComponentError, match="lower clients or min_rows until their product is at most 10"):
        partition.assign(data, np.arange(10), 2, np.random.default_rng(0))


def test_a_single_client_gets_everything() -> None:
    data = labelled(np.arange(30) % 3)
    for partition in (Dirichlet(), IID()):
        (part,) = partition.assign(data, np.arange(30), 1, np.random.default_rng(0))
        np.testing.assert_array_equal(part, np.arange(30))


def test_natural_gives_each_form_its_rows() -> None:
    data = Digits().load(np.random.default_rng(0))
    assert data.natural is not None
    rows = np.arange(0, 1500, 2)
    for form, part in enumerate(Natural().assign(data, rows, 14, np.random.default_rng(0))):
        np.testing.assert_array_equal(part, rows[data.natural[rows] == form])


def test_natural_names_the_number_of_clients_that_works() -> None:
    data = Digits().load(np.random.default_rng(0))
    with pytest.raises(ComponentError, match="write `clients: 14`") as caught:
        Natural().assign(data, np.arange(1500), 20, np.random.default_rng(0))
    assert caught.value.path == "clients"


def test_natural_wants_owners_that_still_have_rows() -> None:
    with pytest.raises(ComponentError, match="no natural owners") as caught:
        Natural().assign(labelled(np.zeros(9, np.int64)), np.arange(9), 3, np.random.default_rng(0))
    assert caught.value.path == "partition.kind"
    data = Synthetic(rows=60, groups=3).load(np.random.default_rng(0))
    assert data.natural is not None
    with pytest.raises(ComponentError, match="owner 1 first"):
        Natural().assign(data, np.flatnonzero(data.natural != 1), 3, np.random.default_rng(0))


# Partitions by labels or sizes whose clients, and, but for shards, whose classes are exchangeable.
EXCHANGEABLE: list[Partition] = [
    IID(),
    Dirichlet(alpha=0.5, min_rows=1),
    Shards(per_client=2),
    Pathological(classes=2),
    QuantitySkew(alpha=0.5, min_rows=1),
    QuantitySkew(law="power", alpha=1.5, min_rows=1),
    InnerDirichlet(alpha=0.3, min_rows=1),
    InnerDirichlet(alpha=0.3, sigma=1.0, min_rows=1),
]


def off_the_marginals(partition: Partition, seeds: int = 400) -> float:
    """How many standard errors the mean share of a class that some client got is away from 1/N, at most."""
    targets = np.repeat(np.arange(4), [40, 11, 75, 25])
    draws = np.stack([shares(partition, targets, 5, seed) for seed in range(seeds)])
    error = np.maximum(draws.std(0) / np.sqrt(seeds), 1e-4)
    return float((np.abs(draws.mean(0) - 0.2) / error).max())


@pytest.mark.parametrize("partition", EXCHANGEABLE, ids=repr)
def test_every_client_expects_the_same_share_of_every_class(partition: Partition) -> None:
    assert off_the_marginals(partition) < 4.5


class UsedUp:
    """What goes wrong where clients choose one after the other: the first have their mix, the last what is left."""

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> tuple[IntArray, ...]:
        free = rng.permutation(rows)
        parts = []
        for size in np.diff(np.linspace(0, len(rows), num_clients + 1).astype(int)):
            mix = rng.dirichlet(np.full(data.num_classes, 0.3)) * np.array([1.0, 1, 3, 1])
            odds = mix[data.train.targets[free]] + 1e-9
            chosen = rng.choice(len(free), size=size, replace=False, p=odds / odds.sum())
            parts.append(np.sort(free[chosen]))
            free = np.delete(free, chosen)
        return tuple(parts)


def test_the_marginals_reject_clients_that_choose_in_turn() -> None:
    assert off_the_marginals(UsedUp()) > 6


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    clients=st.integers(1, 12),
    classes=st.integers(1, 6),
    reserve=st.integers(0, 50),
    pick=st.integers(0, len(EXCHANGEABLE) - 1),
)
def test_partitions_are_disjoint_and_complete(seed: int, clients: int, classes: int, reserve: int, pick: int) -> None:
    rng = np.random.default_rng(seed)
    data = labelled(rng.integers(classes, size=400))
    rows = np.sort(rng.choice(400, size=400 - reserve, replace=False))
    partition = EXCHANGEABLE[pick]
    if isinstance(partition, Pathological):
        partition = Pathological(classes=int(rng.integers(-(-classes // clients), classes + 1)))
    parts, again = (partition.assign(data, rows, clients, np.random.default_rng(seed)) for _ in range(2))
    assert len(parts) == clients
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), rows)
    for one, other in zip(parts, again, strict=True):
        assert len(one) > 0
        assert np.all(np.diff(one) > 0)
        np.testing.assert_array_equal(one, other)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), clients=st.integers(1, 10), each=st.integers(1, 4), extra=st.integers(0, 60))
def test_shards_are_consecutive_in_the_order_of_labels(seed: int, clients: int, each: int, extra: int) -> None:
    """Every label order cut at the same places is a shard order: count what each client may hold of each class."""
    count = clients * each + extra
    rng = np.random.default_rng(seed)
    targets = rng.integers(5, size=count)
    parts = Shards(per_client=each).assign(labelled(targets), np.arange(count), clients, rng)
    longest = -(-count // (clients * each))
    shards = [shard.tolist() for shard in np.array_split(np.sort(targets), clients * each)]
    held = [sorted(targets[part].tolist()) for part in parts]
    assert sorted(label for hand in held for label in hand) == sorted(label for shard in shards for label in shard)
    for hand in held:
        assert each * (longest - 1) <= len(hand) <= each * longest
        if clients == 1 or each == 1:
            # With one shard for each, the hands are the shards themselves.
            assert hand in (shards if each == 1 else [sorted(targets.tolist())])


def test_shards_that_fit_the_classes_have_one_label_each() -> None:
    targets = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 60))
    parts = Shards(per_client=2).assign(labelled(targets), np.arange(600), 10, np.random.default_rng(1))
    assert {len(part) for part in parts} == {60}
    assert {tuple(np.unique(targets[part], return_counts=True)[1]) for part in parts} <= {(30, 30), (60,)}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), clients=st.integers(1, 15), classes=st.integers(1, 8), k=st.integers(1, 8))
def test_pathological_clients_hold_k_classes_shared_evenly(seed: int, clients: int, classes: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    targets = np.concatenate([np.repeat(np.arange(classes), 15), rng.integers(classes, size=120)])
    partition = Pathological(classes=k)
    if k > classes or clients * k < classes:
        with pytest.raises(ComponentError, match=r"use at most|raise classes") as caught:
            partition.assign(labelled(targets), np.arange(len(targets)), clients, rng)
        assert caught.value.path == "partition.classes"
        return
    parts = partition.assign(labelled(targets), np.arange(len(targets)), clients, rng)
    counts = np.stack([np.bincount(targets[part], minlength=classes) for part in parts])
    assert ((counts > 0).sum(axis=1) == k).all()
    owners = (counts > 0).sum(axis=0)
    assert owners.min() >= 1
    assert owners.max() - owners.min() <= 1
    for column in counts.T:
        assert np.ptp(column[column > 0]) <= 1


def test_pathological_says_which_class_is_too_small() -> None:
    data = labelled(np.repeat([0, 1], [50, 3]))
    with pytest.raises(ComponentError, match="class 1 has 3 rows, but 5 clients are to hold some of it; lower clients"):
        Pathological(classes=2).assign(data, np.arange(53), 5, np.random.default_rng(0))


def test_pathological_names_the_clients_that_cover_all_classes() -> None:
    data = labelled(np.repeat(np.arange(10), 20))
    with pytest.raises(ComponentError, match="raise classes to at least 4, or clients to at least 5"):
        Pathological(classes=2).assign(data, np.arange(200), 3, np.random.default_rng(0))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    clients=st.integers(1, 20),
    law=st.sampled_from(["dirichlet", "power"]),
    alpha=st.floats(1e-3, 50),
    least=st.integers(1, 15),
)
def test_quantity_skew_gives_everybody_the_least(seed: int, clients: int, law: str, alpha: float, least: int) -> None:
    data = labelled(np.zeros(300, np.int64))
    skew = QuantitySkew(law=law, alpha=alpha, min_rows=least)  # type: ignore[arg-type]
    parts = skew.assign(data, np.arange(300), clients, np.random.default_rng(seed))
    assert min(len(part) for part in parts) >= least
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(300))


def test_the_power_law_is_a_power_law() -> None:
    data = labelled(np.zeros(100_000, np.int64))
    skew = QuantitySkew(law="power", alpha=1.2, min_rows=1)
    sizes = [sorted(map(len, skew.assign(data, np.arange(100_000), 6, np.random.default_rng(s)))) for s in range(3)]
    assert sizes[0] == sizes[1] == sizes[2]
    slope = np.polyfit(np.log(np.arange(1, 7)), np.log(sizes[0][::-1]), 1)[0]
    assert slope == pytest.approx(-1.2, abs=0.01)


def test_dirichlet_sizes_have_the_moments_of_a_dirichlet() -> None:
    data = labelled(np.zeros(2000, np.int64))
    for alpha, fits in ((0.7, True), (1.4, False)):
        skew = QuantitySkew(alpha=alpha, min_rows=1)
        draws = [list(map(len, skew.assign(data, np.arange(2000), 4, np.random.default_rng(s)))) for s in range(600)]
        variance = (1 / 4) * (3 / 4) / (4 * 0.7 + 1)
        assert (np.var(np.array(draws) / 2000, axis=0).mean() == pytest.approx(variance, rel=0.1)) == fits


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    clients=st.integers(1, 20),
    alpha=st.floats(1e-4, 100),
    sigma=st.sampled_from([0.0, 0.5, 3.0, 1000.0]),
    least=st.integers(1, 10),
)
def test_inner_dirichlet_gives_all_rows(seed: int, clients: int, alpha: float, sigma: float, least: int) -> None:
    rng = np.random.default_rng(seed)
    data = labelled(rng.choice(5, size=300, p=[0.6, 0.2, 0.1, 0.06, 0.04]))
    partition = InnerDirichlet(alpha=alpha, sigma=sigma, min_rows=least)
    parts = partition.assign(data, np.arange(300), clients, rng)
    sizes = [len(part) for part in parts]
    assert min(sizes) >= least
    assert sigma > 0 or max(sizes) - min(sizes) <= 1
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(300))


def test_inner_dirichlet_mixes_are_dirichlet_where_no_class_runs_out() -> None:
    """One client of two has nearly all rows, so that the other draws freely from its own mix."""
    targets = np.repeat(np.arange(3), 4000)
    data, sizes = labelled(targets), np.array([100, 11_900])
    alpha, repetitions = 0.8, 800
    draws = []
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        mixes = np.stack([rng.dirichlet(np.full(3, alpha)), np.full(3, 1 / 3)])
        counts = InnerDirichlet._counts(mixes, sizes, np.array([4000, 4000, 4000]), rng)
        assert counts.sum(axis=1).tolist() == sizes.tolist()
        assert counts.sum(axis=0).tolist() == [4000, 4000, 4000]
        draws.append(counts[0] / 100)
    # Mean and variance of a Dirichlet-multinomial share of 100 rows.
    mean = 1 / 3
    variance = mean * (1 - mean) / 100 * (100 + 3 * alpha) / (1 + 3 * alpha)
    np.testing.assert_allclose(np.mean(draws, axis=0), mean, atol=4.5 * np.sqrt(variance / repetitions))
    np.testing.assert_allclose(np.var(draws, axis=0), variance, rtol=0.15)
    assert not np.allclose(np.var(draws, axis=0), variance * 1.3, rtol=0.15)
    assert len(data.train) == sizes.sum()


def test_small_alpha_makes_inner_mixes_sharp() -> None:
    targets = np.repeat(np.arange(10), 100)

    def labels_held(alpha: float) -> float:
        parts = InnerDirichlet(alpha=alpha).assign(labelled(targets), np.arange(1000), 10, np.random.default_rng(0))
        counts = np.stack([np.bincount(targets[part], minlength=10) for part in parts]) / 100
        return float((1 / (counts**2).sum(axis=1)).mean())

    assert labels_held(0.02) < 3.5 < 7 < labels_held(100.0)


@given(
    weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=20).filter(lambda values: sum(values) > 0),
    least=st.integers(0, 5),
    rest=st.integers(0, 500),
)
def test_apportioned_sizes_add_up_and_are_near_the_exact_ones(weights: list[float], least: int, rest: int) -> None:
    sizes = apportion(np.array(weights), rest + least * len(weights), least)
    assert sizes.sum() == rest + least * len(weights)
    assert sizes.min() >= least
    exact = np.array(weights) / sum(weights) * rest
    assert np.abs(sizes - least - exact).max() <= 1 + 1e-6


# --- feature skew ---------------------------------------------------------------------------------------------------


def images(count: int = 3, shape: tuple[int, ...] = (2, 7, 7)) -> np.ndarray:
    return np.random.default_rng(0).random((count, *shape), dtype=np.float32)


def test_feature_skew_shares_rows_out_as_its_base() -> None:
    data = Synthetic(rows=200).load(np.random.default_rng(0))
    base = Dirichlet(alpha=0.3, min_rows=1)
    skewed = FeatureSkew(base=base)
    assert isinstance(skewed, FeatureShift)
    assert not isinstance(base, FeatureShift)
    for one, other in zip(
        *(p.assign(data, np.arange(200), 4, np.random.default_rng(5)) for p in (base, skewed)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_quarter_turns_move_pixels_exactly() -> None:
    for client in range(4):
        seen = FeatureSkew(strength=1.0).shift(client, 4, images())
        np.testing.assert_array_equal(seen, np.rot90(images(), client, axes=(-2, -1)))


@pytest.mark.parametrize("client", [1, 3, 6])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9), (1, 1, 1)])
def test_rotation_is_that_of_scipy(client: int, shape: tuple[int, ...]) -> None:
    def rotated(degrees: float) -> np.ndarray:
        exact = images(shape=shape).astype(np.float64)
        return ndimage.rotate(exact, degrees, axes=(-2, -1), reshape=False, order=1, mode="grid-constant")

    seen = FeatureSkew(strength=0.6).shift(client, 7, images(shape=shape))
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, rotated(360 * 0.6 * client / 7), atol=1e-6)
    # The other way round it is another image.
    assert shape == (1, 1, 1) or not np.allclose(seen, rotated(-360 * 0.6 * client / 7), atol=1e-2)


def test_contrast_shrinks_towards_the_middle() -> None:
    seen = FeatureSkew(transform="contrast", strength=1.0).shift(3, 4, np.array([[[[0.0, 0.5, 1.0]]]], np.float32))
    np.testing.assert_allclose(seen, [[[[0.375, 0.5, 0.625]]]], atol=1e-7)


@pytest.mark.parametrize("transform", ["rotation", "contrast"])
def test_shifted_images_stay_images(transform: str) -> None:
    skew = FeatureSkew(transform=transform, strength=0.9)  # type: ignore[arg-type]
    given = images()
    spans = []
    for client in range(5):
        seen = skew.shift(client, 5, given)
        assert seen.dtype == np.float32
        assert seen.shape == given.shape
        assert 0 <= seen.min() <= seen.max() <= 1
        # Row by row, so that what is beside an image does not matter.
        np.testing.assert_array_equal(seen[1:2], skew.shift(client, 5, given[1:2]))
        spans.append(np.abs(seen - given).mean())
    assert spans[0] == 0 < min(spans[1:])
    np.testing.assert_array_equal(given, images())
    assert skew.shift(2, 5, given[:0]).shape == (0, 2, 7, 7)


def test_feature_skew_wants_images() -> None:
    data = Synthetic(rows=50, shape=(20,)).load(np.random.default_rng(0))
    with pytest.raises(ComponentError, match=r"inputs have shape \(20,\); choose another data set") as caught:
        FeatureSkew().assign(data, np.arange(50), 2, np.random.default_rng(0))
    assert caught.value.path == "partition.kind"


# --- partitioners of flwr-datasets ----------------------------------------------------------------------------------


def dealt(clients: int = 4, rows: int = 203, leave_out: bool = False, **fields: object) -> tuple[IntArray, ...]:
    targets = np.random.default_rng(0).integers(5, size=300)
    data = labelled(targets)
    partition = Flower(leave_out=leave_out, **fields)  # type: ignore[arg-type]
    return tuple(partition.assign(data, np.arange(0, 300)[:rows], clients, np.random.default_rng(1)))


@pytest.mark.parametrize(
    ("partitioner", "arguments"),
    [
        ("IidPartitioner", {}),
        ("LinearPartitioner", {}),
        ("SquarePartitioner", {}),
        ("DirichletPartitioner", {"alpha": 1.0, "min_partition_size": 2}),
        ("DirichletPartitioner", {"alpha": (1.0, 0.5, 2.0, 1.0), "min_partition_size": 2}),
        ("ContinuousPartitioner", {"strictness": 0.5}),
        ("SizePartitioner", {"partition_sizes": (100, 50, 50, 3)}),
        ("PathologicalPartitioner", {"num_classes_per_partition": 2, "class_assignment_mode": "deterministic"}),
    ],
)
def test_flower_partitioners_deal_out_every_row(partitioner: str, arguments: dict[str, object]) -> None:
    parts, again = (dealt(partitioner=partitioner, arguments=arguments) for _ in range(2))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(203))
    for one, other in zip(parts, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_flower_partitioners_shuffle_what_has_no_seed() -> None:
    """IidPartitioner deals out rows in their order, which may mean something."""
    for part in dealt(partitioner="IidPartitioner"):
        assert stats.kstest(part, "uniform", args=(0, 203)).pvalue > 1e-3


def test_flower_uses_the_owners_that_the_data_know() -> None:
    data = Synthetic(rows=60, groups=3).load(np.random.default_rng(0))
    assert data.natural is not None
    natural = Flower(partitioner="NaturalIdPartitioner", arguments={"partition_by": "natural"})
    parts = natural.assign(data, np.arange(60), 3, np.random.default_rng(0))
    assert {frozenset(part.tolist()) for part in parts} == {
        frozenset(np.flatnonzero(data.natural == owner).tolist()) for owner in range(3)
    }
    with pytest.raises(ComponentError, match="write `clients: 3`") as caught:
        natural.assign(data, np.arange(60), 4, np.random.default_rng(0))
    assert caught.value.path == "clients"


def test_flower_counts_the_rows_that_are_left_out() -> None:
    """The shards that do not fill up are lost; so is every row of a class that nobody was given."""
    arguments = {"num_shards_per_partition": 2, "shard_size": 20}
    with pytest.raises(ComponentError) as caught:
        dealt(partitioner="ShardPartitioner", arguments=arguments)
    assert caught.value.path == "partition.leave_out"
    message = caught.value.message
    assert "leaves out 43 of 203 rows (" in message
    assert "write `leave_out: true`" in message
    listed = [int(part.split(" of class")[0]) for part in message.split("(")[1].split(")")[0].split(", ")]
    assert sum(listed) == 43
    parts = dealt(partitioner="ShardPartitioner", arguments=arguments, leave_out=True)
    assert sum(len(part) for part in parts) == len(np.unique(np.concatenate(parts))) == 160


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"partitioner": "IidPartitoner"}, "partition.partitioner", "did you mean 'IidPartitioner'"),
        ({"partitioner": "VerticalEvenPartitioner"}, "partition.partitioner", "splits columns, not rows"),
        ({"partitioner": "DirichletPartitioner"}, "partition.arguments", "needs alpha; write {alpha: ...}"),
        ({"arguments": {"alpha": 1.0}}, "partition.arguments.alpha", "takes no such argument"),
        (
            {"partitioner": "DirichletPartitioner", "arguments": {"alhpa": 1.0}},
            "partition.arguments.alhpa",
            "did you mean 'alpha'",
        ),
        ({"arguments": {"num_partitions": 3}}, "partition.arguments.num_partitions", "`clients` of the scenario"),
        (
            {"partitioner": "DirichletPartitioner", "arguments": {"alpha": -1.0}},
            "partition.arguments",
            "strictly greater than zero",
        ),
        (
            {"partitioner": "DirichletPartitioner", "arguments": {"alpha": 1e-3, "min_partition_size": 40}},
            "partition.arguments",
            "max number of attempts",
        ),
        ({"partitioner": "SizePartitioner", "arguments": {"partition_sizes": (100, 103)}}, "clients", "`clients: 2`"),
        ({"clients": 300}, "partition", "lower clients to at most 203"),
    ],
)
def test_flower_says_what_to_change(fields: dict[str, object], path: str, message: str) -> None:
    with pytest.raises(ComponentError) as caught:
        dealt(**fields)  # type: ignore[arg-type]
    assert caught.value.path == path
    assert message in caught.value.message


def test_flower_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr_datasets", None)
    with pytest.raises(ComponentError, match=r"pip install 'fedmem\[partitioners\]'") as caught:
        dealt()
    assert caught.value.path == "partition.kind"


def test_no_client_always_gets_the_odd_row() -> None:
    """23 rows for 5 clients are three of five and two of four; who has four is drawn, so that each has it sometimes."""
    partition, fewer = InnerDirichlet(alpha=1.0, min_rows=1), np.zeros(5)
    for seed in range(200):
        parts = partition.assign(labelled(np.arange(23) % 3), np.arange(23), 5, np.random.default_rng(seed))
        sizes = np.array([len(part) for part in parts])
        assert sorted(sizes.tolist()) == [4, 4, 5, 5, 5]
        fewer += sizes == 4
    assert stats.chisquare(fewer, np.full(5, 80.0)).pvalue > 1e-3
