"""Tests of `fedmem/modalities/loss.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from fedmem.contracts.data import Examples
from fedmem.modalities.loss import example_losses, log_likelihoods, lowest_of_what_is_asked, mean_loss
from tests.training.sequences_helpers import Counts, L, V, loss_by_hand, params_of, passages, told


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Counts()


def test_each_example_has_equal_weight_for_any_number_of_tokens(model: nn.Module) -> None:
    rows = passages(7)
    logits = functional_call(model, params_of(model), (torch.from_numpy(rows.inputs),))
    by_hand, targets = loss_by_hand(logits, rows.targets), torch.from_numpy(rows.targets)
    torch.testing.assert_close(example_losses(logits, targets), by_hand)
    torch.testing.assert_close(mean_loss(logits, targets), by_hand.mean())
    # the mean over tokens, which torch would take, is another number
    assert not torch.allclose(cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1), by_hand.mean())


def test_one_target_a_row_is_what_it_was_to_the_last_bit() -> None:
    logits, targets = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 4
    assert torch.equal(mean_loss(logits, targets), cross_entropy(logits, targets))
    assert torch.equal(example_losses(logits, targets), cross_entropy(logits, targets, reduction="none"))


def test_example_without_tokens_has_loss_zero_and_nan_evidence(model: nn.Module) -> None:
    rows = Examples(inputs=np.zeros((1, L), np.int64), targets=np.full((1, L), -1), ids=np.arange(1))
    assert mean_loss(torch.randn(1, L, V), torch.from_numpy(rows.targets)) == 0
    with np.errstate(invalid="ignore"):
        found = told(model, [params_of(model)], rows)
    assert np.isnan([found.loss[0, 0], found.margin[0, 0], found.correct[0, 0]]).all()


@pytest.mark.parametrize("classes", [2, 5, 10, 15, 16, 17])
def test_log_probabilities_of_labels_hang_on_no_other_client(classes: int) -> None:
    """With few classes vectors go over the rows of all clients, and those that are left over must not differ."""
    rng = np.random.default_rng(classes)
    outputs = torch.from_numpy(3 * rng.standard_normal((9, 7, classes), dtype=np.float32))
    targets = torch.from_numpy(rng.integers(0, classes, (9, 7)))

    def both(first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        given = outputs[first:last].clone().requires_grad_()
        found = log_likelihoods(given, targets[first:last])
        (slopes,) = torch.autograd.grad(found.sum(), given)
        return found.detach(), slopes

    found, slopes = both(0, 9)
    plain = outputs.clone().requires_grad_()
    (expected,) = torch.autograd.grad(-cross_entropy(plain.flatten(0, 1), targets.flatten(), reduction="sum"), plain)
    losses = cross_entropy(plain.flatten(0, 1), targets.flatten(), reduction="none").view(9, 7)
    torch.testing.assert_close(found, -losses, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(slopes, expected, rtol=1e-5, atol=1e-6)
    for first in range(9):
        for last in range(first + 1, 10):
            some = both(first, last)
            assert torch.equal(some[0], found[first:last])
            assert torch.equal(some[1], slopes[first:last])


def test_several_places_of_an_example_count_as_their_mean() -> None:
    outputs, targets = torch.randn(2, 3, 4, 5), torch.randint(0, 5, (2, 3, 4))
    expected = -cross_entropy(outputs.flatten(0, 2), targets.flatten(), reduction="none").view(2, 3, 4).mean(dim=2)
    torch.testing.assert_close(log_likelihoods(outputs, targets), expected)


def test_lowest_share_is_at_least_one_token() -> None:
    values = np.array([[[-1.0, -5.0, -3.0, -2.0, -100.0]]])
    targets = np.array([[7, 7, 7, 7, -1]])
    expected = {0.01: -5, 0.25: -5, 0.49: -5, 0.5: -4, 0.74: -4, 0.75: -10 / 3, 1.0: -11 / 4}
    assert {k: lowest_of_what_is_asked(values, targets, k).item() for k in expected} == pytest.approx(expected)
    # 0.29 of 100 is 28.999999999999996 in floating point, and 29 tokens
    many = -np.arange(100.0)[None, None]
    assert lowest_of_what_is_asked(many, np.zeros((1, 100), dtype=np.int64), 0.29).item() == -np.arange(71, 100).mean()


def test_ties_nan_nothing_asked_and_single_labels() -> None:
    targets = np.array([[1, 1, 1], [-1, -1, -1], [1, -1, -1]])
    values = np.array([[[-2.0, -2.0, -1.0], [0.0, 0.0, 0.0], [-3.0, np.nan, np.nan]]])
    found = lowest_of_what_is_asked(values, targets, 0.67)[0]
    assert found[[0, 2]].tolist() == [-2.0, -3.0]
    assert np.isnan(found[1])
    assert np.isnan(lowest_of_what_is_asked(np.array([[[-2.0, np.nan, -1.0]]]), targets[:1], 0.1)).all()
    assert lowest_of_what_is_asked(np.array([[-2.0, -1.0]]), np.array([3, 4]), 0.1).tolist() == [[-2.0, -1.0]]


def test_one_output_is_a_log_density() -> None:
    """Its loss is minus it, everywhere: alone, as a mean, and in a stack of models."""
    log_p, targets = torch.tensor([[-20.0], [3.0]]), torch.zeros(2, dtype=torch.int64)
    assert example_losses(log_p, targets).tolist() == [20, -3]
    assert mean_loss(log_p, targets).item() == 8.5
    stack = torch.stack([log_p, log_p + 1])
    assert log_likelihoods(stack, targets.expand(2, 2)).tolist() == [[-20, 3], [-19, 4]]
    places = torch.zeros(1, 3, 1)  # one token at each place of a text is no density
    assert example_losses(places, torch.zeros(1, 3, dtype=torch.int64)).tolist() == [0]
