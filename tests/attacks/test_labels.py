import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from fedmem.attacks._labels import guess_labels, infer_labels, last_bias
from fedmem.errors import RunError


def bias_gradient(labels: list[int], probabilities: np.ndarray) -> np.ndarray:
    """The exact gradient of the mean cross-entropy in the last bias: mean of p - onehot(y)."""
    differences = [p - np.eye(len(p))[y] for p, y in zip(probabilities, labels, strict=True)]
    return np.asarray(np.mean(differences, axis=0))


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh])
@pytest.mark.parametrize("label", [0, 3, 9])
def test_label_of_one_example_is_the_negative_bias_entry(activation: type[nn.Module], label: int) -> None:
    torch.manual_seed(label)
    model = nn.Sequential(nn.Linear(6, 8), activation(), nn.Linear(8, 10))
    loss = functional.cross_entropy(model(torch.rand(1, 6)), torch.tensor([label]))
    names = [name for name, _ in model.named_parameters()]
    gradient = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    bias = last_bias(gradient, 10)
    assert (bias < 0).sum() == 1
    assert infer_labels(bias, 1).tolist() == [label]
    assert infer_labels(-bias, 1).tolist() != [label], "a gradient of the wrong sign must not give the label"


@given(st.sets(st.integers(0, 9), min_size=1, max_size=6), st.floats(1e-3, 1e3))
def test_distinct_labels_are_found_whatever_the_scale(labels: set[int], scale: float) -> None:
    # near-uniform predictions, as at initialisation: every present class is negative
    bias = bias_gradient(sorted(labels), np.full((len(labels), 10), 0.1))
    assert infer_labels(scale * bias, len(labels)).tolist() == sorted(labels)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=10), st.integers(1, 40))
def test_inferred_labels_have_the_count_and_all_negative_classes(bias: list[float], count: int) -> None:
    found = infer_labels(bias, count)
    negative = {label for label, value in enumerate(bias) if value < 0}
    assert len(found) == count
    assert sorted(found) == found.tolist()
    assert negative <= set(found.tolist()) or len(negative) > count


def test_repeats_are_inferred_right_and_wrong_under_flipped_sign() -> None:
    rng = np.random.default_rng(0)
    right: list[float] = []
    wrong: list[float] = []
    for _ in range(200):
        labels = rng.integers(10, size=10)
        bias = bias_gradient(labels.tolist(), softmax(0.1 * rng.normal(size=(10, 10))))
        for shares, found in ((right, infer_labels(bias, 10)), (wrong, infer_labels(-bias, 10))):
            overlap = np.minimum(np.bincount(found, minlength=10), np.bincount(labels, minlength=10)).sum()
            shares.append(overlap / 10)
    assert np.mean(right) > 0.95
    assert np.mean(wrong) < 0.45


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_uniform_predictions_reveal_all_label_counts(labels: list[int]) -> None:
    bias = bias_gradient(labels, np.full((len(labels), 5), 0.2))
    assert infer_labels(bias, len(labels)).tolist() == sorted(labels)


def test_requested_labels_of_a_large_batch_are_proportional() -> None:
    bias = bias_gradient([0] * 50 + [1] * 100 + [2] * 50, np.full((200, 4), 0.25))
    assert infer_labels(bias, 8).tolist() == [0, 0, 1, 1, 1, 1, 2, 2]


def test_labels_of_trained_model_fall_back_to_the_guess() -> None:
    """Large batch, good predictions: g is all but 0, and its negative entries say little. They once took everything."""
    rng = np.random.default_rng(0)
    found: list[float] = []
    guessed: list[float] = []
    for _ in range(50):
        labels = rng.integers(10, size=100)
        predictions = softmax(6 * np.eye(10)[labels] + rng.normal(size=(100, 10)))
        inferred = infer_labels(bias_gradient(labels.tolist(), predictions), 100)
        counts = np.bincount(labels, minlength=10)
        for shares, some in ((found, inferred), (guessed, guess_labels(100, 10))):
            shares.append(np.minimum(counts, np.bincount(some, minlength=10)).sum() / 100)
    assert np.mean(found) > np.mean(guessed) - 0.01
    assert np.mean(guessed) > 0.8


def test_more_negative_classes_than_examples_takes_lowest_ones() -> None:
    assert infer_labels([-0.1, -0.3, -0.2, 0.6], 2).tolist() == [1, 2]


@pytest.mark.parametrize("bias", [[0.0, 0.0, 0.0], [np.nan, np.nan, np.nan]])
def test_no_information_gives_some_label_and_no_error(bias: list[float]) -> None:
    assert infer_labels(bias, 2).tolist() == [0, 1]


def test_last_bias_of_matching_size_is_read_else_an_error() -> None:
    gradient = {"a.bias": torch.ones(3), "b.weight": torch.ones(3, 3), "b.bias": 2 * torch.ones(3)}
    assert last_bias(gradient, 3).tolist() == [2.0, 2.0, 2.0]
    assert last_bias({"bias": torch.zeros(4)}, 4).tolist() == [0.0] * 4
    with pytest.raises(RunError, match="bias of 5 entries; give the model's last layer a bias"):
        last_bias(gradient, 5)
