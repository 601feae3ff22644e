"""The reserve hands out each row once, with labels like its client's."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedmem.contracts import reserve as spare_module
from fedmem.contracts.data import Examples
from fedmem.contracts.reserve import Reserve
from fedmem.errors import ComponentError
from tests.narrowing import instance


@pytest.fixture(scope="module", autouse=True, params=["shuffled for every draw", "shuffled once"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Small and large reserves draw in two ways, which promise the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spare_module, "SHUFFLED_ONCE", 0 if request.param == "shuffled once" else 10**9)
        yield request.param


def spare(labels: list[int]) -> Reserve:
    ids = np.arange(len(labels))
    return Reserve(
        Examples(inputs=np.zeros((len(ids), 1), np.float32), targets=np.array(labels, np.int64), ids=ids + 100)
    )


def naive(labels: np.ndarray, targets: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Row after row: a label drawn from `targets`, drawn again if none of it is free; then any free row of it."""
    free, taken = list(range(len(labels))), []
    for _ in range(count):
        possible = [label for label in targets if any(labels[i] == label for i in free)]
        label = rng.choice(possible) if possible else None
        taken.append(rng.choice([i for i in free if label is None or labels[i] == label]))
        free.remove(taken[-1])
    drawn: np.ndarray = labels[np.array(taken)]
    return drawn


@settings(max_examples=80, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    targets=st.lists(st.integers(0, 6), max_size=10),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_rows_are_handed_out_once(labels: list[int], targets: list[int], seed: int, data: st.DataObject) -> None:
    reserve, rng = spare(labels), np.random.default_rng(seed)
    first = data.draw(st.integers(0, len(labels)))
    one = reserve.positions_like(np.array(targets, np.int64), first, rng)
    assert len(reserve) == len(labels) - first
    other = reserve.positions_like(np.array(targets, np.int64), len(reserve), rng)
    assert sorted([*one.tolist(), *other.tolist()]) == list(range(len(labels)))
    # A row outside the wanted labels only comes when all rows of wanted labels are gone.
    wanted = sum(label in targets for label in labels)
    assert sum(labels[i] in targets for i in one) == min(first, wanted)


def test_no_row_is_fine() -> None:
    assert spare([0, 1]).positions_like(np.array([0]), 0, np.random.default_rng(0)).tolist() == []
    assert len(spare([]).take_like(np.array([0]), 0, np.random.default_rng(0))) == 0


def test_too_many_rows_are_an_error_and_take_nothing() -> None:
    reserve = spare([0, 1])
    with pytest.raises(ComponentError, match=r"\b3 rows .*\b2 are left"):
        reserve.positions_like(np.array([0]), 3, np.random.default_rng(0))
    assert len(reserve) == 2


def test_forks_do_not_touch_each_other() -> None:
    reserve = spare([0, 0, 1, 1])
    reserve.take_like(np.array([0]), 1, np.random.default_rng(0))
    fork = reserve.fork()
    fork.take_like(np.array([1]), 2, np.random.default_rng(0))
    assert (len(reserve), len(fork)) == (3, 1)
    assert len(reserve.remaining()) == 3


def test_left_keeps_the_order_and_misses_what_was_taken() -> None:
    reserve = spare([0, 1, 0, 1])
    taken = reserve.take_like(np.array([1]), 1, np.random.default_rng(0)).ids.tolist()
    assert reserve.remaining().ids.tolist() == [i for i in (100, 101, 102, 103) if i not in taken]


def test_later_targets_may_know_more_labels_or_fewer() -> None:
    reserve, rng = spare([0, 1, 2, 2]), np.random.default_rng(0)
    drawn = [reserve.take_like(np.array(targets), 1, rng).targets.tolist() for targets in ([9, 2], [1, 0], [7])]
    assert drawn[0] == [2]
    assert drawn[1][0] in (0, 1)
    assert len(reserve) == 1


def test_any_row_has_equal_probability_where_no_label_fits() -> None:
    counts = np.zeros(5)
    for seed in range(2000):
        counts[spare([0, 1, 0, 1, 1]).positions_like(np.array([3]), 2, np.random.default_rng(seed))] += 1
    assert stats.chisquare(counts).pvalue > 1e-3


def test_draws_from_a_large_reserve_do_not_go_through_it(way: str) -> None:
    """The numbers that are drawn after the first time grow with what is wanted alone."""
    reserve, rng = spare([0, 1] * 50_000), np.random.default_rng(0)
    reserve.positions_like(np.array([0, 1]), 1, rng)
    before = rng.bit_generator.state["state"]["state"]
    twin = np.random.default_rng(0)
    twin.bit_generator.state = {**rng.bit_generator.state}
    reserve.positions_like(np.array([0, 1]), 3, rng)
    after = rng.bit_generator.state["state"]["state"]
    steps, generator = 0, instance(twin.bit_generator, np.random.PCG64)
    while before != after and steps < 100:
        generator.advance(1)
        before, steps = generator.state["state"]["state"], steps + 1
    assert (steps < 100) == (way == "shuffled once")


@pytest.mark.statistical
def test_draws_like_one_row_after_the_other() -> None:
    """Against the naive draw, with a stock so small that labels run out; the order is exchangeable in both."""
    labels, targets, count = np.array([0, 0, 0, 1, 2, 2, 3]), np.array([0, 1, 1, 1, 2]), 4
    fast, slow = np.zeros(4), np.zeros(4)
    for seed in range(4000):
        rows = spare(labels.tolist()).positions_like(targets, count, np.random.default_rng(seed))
        fast += np.bincount(labels[rows], minlength=4)
        slow += np.bincount(naive(labels, targets, count, np.random.default_rng(10**6 + seed)), minlength=4)
    assert fast[3] == slow[3] == 0
    assert stats.chi2_contingency(np.stack([fast[:3], slow[:3]])).pvalue > 1e-3
    # Hypergeometric sampling that ignores the labels of the client would be noticed.
    blind = np.array([3, 1, 2]) / 6 * 4 * 4000
    assert stats.chisquare(fast[:3], blind).pvalue < 1e-3


def test_rows_of_a_label_have_equal_probability() -> None:
    counts = np.zeros(6)
    for seed in range(2000):
        counts[spare([0, 1, 0, 0, 1, 0]).positions_like(np.array([0]), 2, np.random.default_rng(seed))] += 1
    assert counts[1] == counts[4] == 0
    assert stats.chisquare(counts[[0, 2, 3, 5]]).pvalue > 1e-3


def test_order_of_drawn_rows_is_independent_of_labels() -> None:
    """The first out example of a client gets the first row: in the order of labels it would always be of label 0."""
    first, late = np.zeros(2), 0
    for seed in range(200):
        reserve, rng = spare([0] * 30 + [1] * 30), np.random.default_rng(seed)
        labels = reserve.positions_like(np.array([0, 1]), 20, rng) >= 30
        first[int(labels[0])] += 1
        late += int(labels[10:].sum()) - int(labels[:10].sum())
    assert stats.binomtest(int(first[0]), 200, 0.5).pvalue > 1e-3
    assert abs(late) < 4 * np.sqrt(200 * 20 / 4), "as many of each label come late as early"
