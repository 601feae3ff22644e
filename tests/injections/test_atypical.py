"""Each atypical kind changes rows as it states, against closed forms and naive loops."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.contracts.reserve import Reserve
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError
from fedmem.federation.build import build
from fedmem.injections._softmax import PENALTY, Softmax, fit
from fedmem.injections.adversarial import Adversarial
from fedmem.injections.corrupted import Corrupted
from fedmem.injections.label_noise import LabelNoise, apportion_mistakes
from fedmem.injections.near_duplicate import NearDuplicate
from fedmem.injections.out_of_distribution import OutOfDistribution
from fedmem.injections.poison import Poison
from fedmem.injections.rare_subgroup import RareSubgroup
from fedmem.modalities.tables import Tables
from tests.tiny import tiny

DATA = Synthetic(rows=700, shape=(1, 8, 8), classes=4, separation=6.0).load(np.random.default_rng(0))
ROWS = DATA.train
SPACE = Space.of(DATA)
RESERVE = ROWS.take(np.arange(300, 700))
BASE = [
    ClientData(client=k, examples=ROWS.take(np.arange(start, end)))
    for k, (start, end) in enumerate([(0, 50), (50, 200), (200, 300)])
]


def plan(injection: Any, seed: int = 0, spare: Reserve | None = None, space: Space = SPACE) -> InjectionPlan:
    planned: InjectionPlan = injection.plan(BASE, spare or Reserve(RESERVE), space, np.random.default_rng(seed))
    return planned


def clean(injected: InjectionPlan) -> Examples:
    """The rows that the examples were made from."""
    return ROWS.take(injected.examples.ids)


def test_noise_is_normal_with_the_stated_spread() -> None:
    wide = replace(SPACE, low=SPACE.low - 50, high=SPACE.high + 50)  # nothing is clipped
    injected = plan(Corrupted(per_client=30, severity=0.01), space=wide)
    noise = (injected.examples.inputs - clean(injected).inputs).ravel()
    spread = 0.01 * float(wide.high.max() - wide.low.min())
    assert stats.kstest(noise, stats.norm(0, spread).cdf).pvalue > 1e-3
    assert stats.kstest(noise, stats.norm(0, 1.1 * spread).cdf).pvalue < 1e-3


def test_blur_is_a_gaussian_that_keeps_the_mean_and_smooths() -> None:
    injected = plan(Corrupted(damage="blur", severity=0.5))
    size, sigma = 8, 1.0
    offsets = np.arange(-4, 5)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for blurred, row in zip(injected.examples.inputs[:3, 0], clean(injected).inputs[:3, 0], strict=True):
        naive = np.zeros((size, size))
        for y, x in product(range(size), repeat=2):
            for (i, a), (j, b) in product(enumerate(offsets), repeat=2):
                naive[y, x] += kernel[i] * kernel[j] * row[min(max(y + a, 0), 7), min(max(x + b, 0), 7)]
        np.testing.assert_allclose(blurred, naive, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(severity=st.floats(0.05, 1), seed=st.integers(0, 20))
def test_occlusion_covers_one_rectangle_of_the_stated_area(severity: float, seed: int) -> None:
    injected = plan(Corrupted(damage="occlusion", severity=severity, per_client=2), seed)
    side = max(1, int(8 * severity**0.5 + 0.5))
    grey = (SPACE.low.min() + SPACE.high.max()) / 2
    for covered, row in zip(injected.examples.inputs[:, 0], clean(injected).inputs[:, 0], strict=True):
        hidden = covered != row
        assert np.all(covered[hidden] == grey)
        ys, xs = np.nonzero(covered == grey)
        assert np.count_nonzero(covered == grey) == side * side
        assert np.ptp(ys) == np.ptp(xs) == side - 1


@pytest.mark.parametrize(
    "injection", [Corrupted(), NearDuplicate(), Adversarial(), OutOfDistribution(source="negatives")]
)
def test_labels_stay_true_and_look_like_the_holder(injection: Any) -> None:
    injected = plan(injection)
    np.testing.assert_array_equal(injected.examples.targets, clean(injected).targets)


def test_negatives_are_upside_down_about_the_middle() -> None:
    injected = plan(OutOfDistribution(source="negatives"))
    total = injected.examples.inputs.astype(np.float64) + clean(injected).inputs
    np.testing.assert_allclose(total, SPACE.low.min() + SPACE.high.max(), atol=1e-6)


def test_gratings_are_sine_waves_with_any_label() -> None:
    where = replace(SPACE, mean=np.zeros((2, 16, 16), np.float32), low=np.array(0.0), high=np.array(1.0))
    injected = plan(OutOfDistribution(per_client=200), space=where)
    inputs = injected.examples.inputs
    assert inputs.shape == (600, 2, 16, 16)
    np.testing.assert_array_equal(inputs[:, 0], inputs[:, 1])
    assert (injected.examples.ids < 0).all()
    assert stats.chisquare(np.bincount(injected.examples.targets, minlength=4)).pvalue > 1e-3
    # On a line a sampled sine satisfies x[i-1] + x[i+1] = 2 cos(step) x[i].
    wave = 2 * inputs[:, 0].astype(np.float64) - 1
    for line in wave[:20, 3]:
        middle, sums = line[1:-1], line[:-2] + line[2:]
        np.testing.assert_allclose(sums, middle * (middle @ sums) / (middle @ middle), atol=1e-4)


def test_near_copies_are_near_and_of_their_own_original() -> None:
    injected = plan(NearDuplicate(per_client=2, multiplicity=4, strength=0.01, copies=2))
    extra, slots = injected.extra, injected.copy_index
    assert extra is not None
    assert slots is not None
    assert injected.copies.tolist() == [8] * 6
    for j, group in enumerate(slots.reshape(6, 2, 4)):
        np.testing.assert_array_equal(group[0], group[1])
        assert group[0, 0] == -1
        near = extra.take(group[0, 1:])
        assert set(near.targets.tolist()) == {int(injected.examples.targets[j])}
        errors = np.abs(near.inputs - injected.examples.inputs[j]).reshape(3, -1).mean(1)
        assert ((errors > 0) & (errors < 0.02)).all()
    assert (extra.ids < 0).all()


def test_shifts_move_the_picture_by_whole_pixels() -> None:
    injected = plan(NearDuplicate(change="shift", strength=0.25, per_client=10))
    assert injected.extra is not None
    seen = set()
    for i, moved in enumerate(injected.extra.inputs[:, 0]):
        row = np.pad(injected.examples.inputs[i // 3, 0], 2, mode="edge")
        fits = [
            (dy, dx)
            for dy, dx in product(range(-2, 3), repeat=2)
            if np.array_equal(moved, row[2 - dy : 10 - dy, 2 - dx : 10 - dx])
        ]
        assert len(fits) == 1
        assert fits != [(0, 0)]
        seen |= set(fits)
    assert len(seen) > 15


def test_noise_on_a_table_leaves_categories_alone() -> None:
    blocks = (1,) * 10 + (54,)
    flat = Examples(inputs=ROWS.inputs.reshape(700, 64), targets=ROWS.targets, ids=ROWS.ids)
    where = replace(
        SPACE, mean=flat.inputs.mean(0), low=flat.inputs.min(0), high=flat.inputs.max(0), modality=Tables(blocks=blocks)
    )
    base = [ClientData(client=0, examples=flat.take(np.arange(50)))]
    found = NearDuplicate().plan(base, Reserve(flat.take(np.arange(50, 90))), where, np.random.default_rng(0))
    assert found.extra is not None
    originals = np.repeat(found.examples.inputs, 3, axis=0)
    np.testing.assert_array_equal(found.extra.inputs[:, 10:], originals[:, 10:])
    assert (found.extra.inputs[:, :10] != originals[:, :10]).mean() > 0.9
    with pytest.raises(ComponentError, match="categories only"):
        NearDuplicate().plan(
            base,
            Reserve(flat.take(np.arange(50, 90))),
            replace(where, modality=Tables(blocks=(30, 34))),
            np.random.default_rng(0),
        )


def test_a_subgroup_is_unaltered_rows_of_its_class() -> None:
    injected = plan(RareSubgroup(of_class=2, per_client=5, clients=(1,)))
    assert set(injected.examples.targets.tolist()) == {2}
    assert injected.owner.tolist() == [1] * 5
    np.testing.assert_array_equal(injected.examples.inputs, clean(injected).inputs)


def test_label_noise_has_its_rate_and_follows_the_sizes() -> None:
    injected = plan(LabelNoise(rate=0.1))
    assert np.bincount(injected.owner).tolist() == [12, 35, 23]  # 70 as 50 to 150 to 100
    assert not np.any(injected.examples.targets == clean(injected).targets)
    only = plan(LabelNoise(rate=0.1, clients=(1,), per_client=2))
    assert np.bincount(only.owner).tolist() == [0, 23 + 2]  # a third of 70


def test_label_noise_counts_rows_that_no_client_holds() -> None:
    injections = [{"kind": "label_noise", "rate": 0.1}, {"kind": "typical", "per_client": 10}]
    built = build(tiny(dataset={"kind": "digits"}, population=200, injections=injections))
    noisy = np.count_nonzero(built.audit.kind == "label_noise")
    assert noisy == 0.1 * sum(built.counts[name] for name in ("population", "audit", "replacements", "base")) == 150
    slots = sum(len(built.rows(0, client, 1)) for client in range(5))
    assert noisy / slots == pytest.approx(0.136, abs=1e-3), "not 0.1"


@given(st.integers(0, 500), st.lists(st.integers(1, 1000), min_size=1, max_size=20))
def test_dealing_adds_up_and_is_off_by_less_than_one(total: int, sizes: list[int]) -> None:
    counts = apportion_mistakes(total, np.array(sizes))
    assert counts.sum() == total
    assert np.all(np.abs(counts - total * np.array(sizes) / sum(sizes)) < 1)


def test_flips_are_uniform_or_to_the_next_class() -> None:
    uniform = plan(LabelNoise(rate=0.4))
    steps = (uniform.examples.targets - clean(uniform).targets) % 4
    counts = np.bincount(steps, minlength=4)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-3
    following = plan(LabelNoise(rate=0.4, flips="next"))
    assert set(((following.examples.targets - clean(following).targets) % 4).tolist()) == {1}


def test_softmax_regression_reaches_its_optimum() -> None:
    """The gradient of the penalised loss vanishes, and by far not at a rescaled solution."""
    x, y = RESERVE.inputs.reshape(400, -1)[:100], RESERVE.targets[:100]
    model = fit(x, y, 4)

    def slope(weights: Any) -> float:
        logits = x @ weights.T + model.biases
        odds = np.exp(logits - logits.max(1, keepdims=True))
        error = odds / odds.sum(1, keepdims=True) - np.eye(4)[y]
        return float(np.abs(error.T @ x / len(x) + PENALTY * weights).max())

    assert slope(model.weights) < 2e-3
    assert slope(0.5 * model.weights) > 5 * slope(model.weights)
    assert ((x @ model.weights.T + model.biases).argmax(1) == y).mean() > 0.95


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), epsilon=st.floats(0.01, 1))
def test_no_corner_of_the_box_has_a_smaller_margin(seed: int, epsilon: float) -> None:
    rng = np.random.default_rng(seed)
    model = Softmax(weights=rng.normal(size=(3, 5)), biases=rng.normal(size=3))
    row, own = rng.random((1, 5)).astype(np.float32), np.array([1])
    low, high = np.zeros(5, np.float32), np.ones(5, np.float32)
    where = Space(num_classes=3, num_rows=9, mean=row[0], low=low, high=high, modality=Tables())
    (found,) = Adversarial(epsilon=epsilon)._perturb(row, own, model, where)

    def margin(point: Any) -> float:
        logits = model.weights @ point + model.biases
        return float(logits[1] - np.delete(logits, 1).max())

    corners = [np.clip(row[0] + epsilon * np.array(signs), 0, 1) for signs in product([-1, 1], repeat=5)]
    assert np.abs(found - row[0]).max() <= epsilon + 1e-6
    assert margin(found) == pytest.approx(min(margin(corner) for corner in corners), abs=1e-5)


def test_adversarial_rows_fool_the_reference_more_than_noise_of_the_same_size() -> None:
    injected = plan(Adversarial(epsilon=0.15, per_client=20))
    public = RESERVE.take(np.arange(200))
    model = fit(public.inputs.reshape(200, -1), public.targets, 4)

    def right(inputs: Any) -> float:
        logits = inputs.reshape(len(inputs), -1) @ model.weights.T + model.biases
        return float((logits.argmax(1) == injected.examples.targets).mean())

    noise = 0.15 * np.random.default_rng(0).choice([-1, 1], size=injected.examples.inputs.shape)
    assert right(clean(injected).inputs) > 0.9
    assert right(clean(injected).inputs + noise) > 0.8
    assert right(injected.examples.inputs) < 0.5


def test_rows_of_the_reference_model_are_given_to_nobody() -> None:
    spare = Reserve(RESERVE)
    injected = plan(Adversarial(reference_rows=30), spare=spare)
    assert len(RESERVE) - len(spare) == len(injected.examples) + 30


def test_poison_is_its_victim_drawn_to_the_middle_under_another_label() -> None:
    injected = plan(Poison(victim=2, target=3, pull=0.5, per_client=5))
    rows = clean(injected)
    assert set(rows.targets.tolist()) == {2}
    assert set(injected.examples.targets.tolist()) == {3}
    expected = 0.5 * rows.inputs.astype(np.float64) + 0.5 * rows.inputs.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(injected.examples.inputs, expected, atol=1e-6)


def test_poison_is_nearer_to_the_middle_of_its_victim_than_real_rows_and_pull_zero_is_a_label_flip() -> None:
    middle = ROWS.inputs[ROWS.targets == 2].mean(axis=0)
    pulled = plan(Poison(victim=2, per_client=20))
    far, near = (
        np.square(x - middle).sum(axis=(1, 2, 3)).mean() for x in (clean(pulled).inputs, pulled.examples.inputs)
    )
    assert near < 0.5 * far
    plain = plan(Poison(victim=2, pull=0.0))
    np.testing.assert_array_equal(plain.examples.inputs, clean(plain).inputs)


def test_poison_that_is_rightly_labelled_is_refused() -> None:
    with pytest.raises(ComponentError, match="is the victim itself") as caught:
        Poison(victim=1, target=1)
    assert caught.value.path == "target"
    with pytest.raises(ComponentError, match="there is no class 7; use 0 to 3") as caught:
        plan(Poison(target=7))
    assert caught.value.path == "injections.target"
