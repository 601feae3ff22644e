"""Tests of `fedmem/training/per_example.py`."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from fedmem.clients.dp_sgd import DpSgd
from fedmem.contracts.client import PerExample
from fedmem.contracts.data import Examples
from fedmem.models.char_rnn import CharRnn
from fedmem.models.transformer import Transformer
from fedmem.seeding import Streams
from fedmem.training.one_by_one import OneByOne
from fedmem.training.per_example import NOISE, ClippedSums, Noise, clipped_sums
from fedmem.training.stacked import Stacked
from tests.clients.dp_sgd_helpers import batch_of, naive, networks


def test_noise_is_that_of_the_streams() -> None:
    noise = Noise(7).of(1, 2, 3, 5)
    (rng,) = Streams(7, NOISE).generators(run=[1], round_number=2, client=[3])
    drawn = [next(noise).numpy() for _ in range(3)]
    np.testing.assert_array_equal(np.concatenate(drawn), rng.standard_normal(15))
    # two at once do not disturb each other
    one, other = Noise(7).of(1, 2, 3, 5), Noise(7).of(1, 2, 4, 5)
    for part in drawn:
        assert not np.array_equal(next(other).numpy(), part)
        np.testing.assert_array_equal(next(one).numpy(), part)


LANGUAGE: dict[str, CharRnn | Transformer] = {
    "gru": CharRnn(embedding=6, hidden=8, layers=2),
    "lstm": CharRnn(cell="lstm", embedding=6, hidden=8),
    "transformer": Transformer(width=8, heads=2, layers=1),
    # with enough linear weights for ghost clipping, if it were not for the embeddings
    "wide transformer": Transformer(width=40, heads=2, layers=1),
}


def passages(count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of nine tokens, of which the last is asked for nothing but its last four."""
    rng = np.random.default_rng(2)
    inputs, targets = torch.from_numpy(rng.integers(11, size=(2, count, 9)))
    targets[-1, :5] = -1
    return inputs, targets


@pytest.mark.parametrize("kind", LANGUAGE)
@pytest.mark.parametrize("clip", [0.05, 0.5, 50.0])
def test_each_window_of_a_text_is_clipped_by_itself(kind: str, clip: float) -> None:
    """Against a plain loop: by one client's sums, and where models can be stacked by those of a stack."""
    torch.manual_seed(0)
    model = LANGUAGE[kind].build((9,), 11)
    params = {name: value.detach().clone() for name, value in model.named_parameters()}
    inputs, targets = passages()
    total, norms = {name: np.zeros(tuple(value.shape)) for name, value in params.items()}, []
    for one, asked in zip(inputs, targets, strict=True):
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        logits = functional_call(model, leaves, (one[None],))
        found = torch.autograd.grad(F.cross_entropy(logits[0], asked, ignore_index=-1), list(leaves.values()))
        norms.append(np.sqrt(sum(float(value.double().square().sum()) for value in found)))
        for name, value in zip(params, found, strict=True):
            total[name] += value.double().numpy() * min(1.0, clip / (norms[-1] + 1e-6))
    how = PerExample(clip=clip, noise_multiplier=1.0, expected=4.0)
    given = {name: value[None] for name, value in params.items()}
    outputs = lambda own, batch: functional_call(model, own, (batch,))  # noqa: E731
    sums = [ClippedSums(model, how)(params, inputs, targets)]
    if LANGUAGE[kind].stackable:
        sums.append(clipped_sums(outputs, None, given, inputs[None], targets[None], torch.ones(1, 5), clip))
    for losses, shares, clipped in sums:
        assert losses.shape[-1:] == (5,)
        np.testing.assert_allclose(shares.flatten(), np.minimum(np.array(norms) / clip, 1) ** 2, rtol=1e-4)
        for name, expected in total.items():
            np.testing.assert_allclose(clipped[name].reshape(expected.shape), expected, atol=2e-6 * max(1.0, clip))
    # not the sum of them clipped as one, which a mean over the batch would be
    whole = np.sqrt(sum((value**2).sum() for value in total.values()))
    assert whole > 1.5 * clip or clip > max(norms)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_window_whose_gradient_is_not_finite_counts_as_zero(cell: Literal["gru", "lstm"]) -> None:
    model = CharRnn(cell=cell, embedding=6, hidden=8).build((9,), 11)
    params = {name: value.detach().clone() for name, value in model.named_parameters()}
    # one token leads to no number
    params["embedding.weight"][10] = torch.nan
    inputs, targets = passages()
    inputs[inputs == 10] = 9
    expected = ClippedSums(model, PerExample(clip=0.1, noise_multiplier=1.0, expected=4.0))(params, inputs, targets)
    inputs, targets = torch.cat((inputs, inputs[:1])), torch.cat((targets, targets[:1]))
    inputs[5, 3] = 10
    _, shares, total = ClippedSums(model, PerExample(clip=0.1, noise_multiplier=1.0, expected=4.0))(
        params, inputs, targets
    )
    assert shares[5] == 0
    assert all(torch.equal(total[name], value) for name, value in expected[2].items())


class Reused(nn.Module):
    """Uses the weight of a layer by its module, and again by a function."""

    def __init__(self, width: int, share: float = 1.0) -> None:
        super().__init__()
        self.first, self.last, self.share = nn.Linear(width, width, bias=False), nn.Linear(width, 3), share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(x))
        out: torch.Tensor = self.last(h + self.share * torch.relu(F.linear(h, self.first.weight)))
        return out


@pytest.mark.parametrize("width", [5, 160])
def test_reused_weight_is_clipped_with_all_its_uses(width: int) -> None:
    """By hooks, by ghost clipping and in a stack; what the two executors train with."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Reused(width)
        inputs = torch.randn(6, width)
    nn.init.orthogonal_(model.first.weight, gain=2.0)
    data = Examples(inputs=inputs.numpy(), targets=np.arange(6) % 3, ids=np.arange(6))
    params = {name: value.detach() for name, value in model.named_parameters()}
    client = DpSgd(lr=0.3, batch_size=6, steps=1, clip=0.3, noise_multiplier=1.0)
    expected = naive(model, params, inputs, torch.from_numpy(data.targets), 0.3)
    single = OneByOne(model, client, data)._sums
    assert single is not None
    assert single.ghost == (width == 160)
    assert single.one_by_one
    found = single(params, inputs, torch.from_numpy(data.targets))[2]
    layers = Stacked(model, client, data)._layers
    outputs = lambda given, batch: functional_call(model, given, (batch,))  # noqa: E731
    pair = {name: value[None] for name, value in params.items()}
    mask = torch.ones(1, 6)
    stack = clipped_sums(outputs, layers, pair, inputs[None], torch.from_numpy(data.targets)[None], mask, 0.3)[2]
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(stack[name][0].numpy(), value, rtol=1e-3, atol=1e-5)


@networks
def test_models_of_modules_alone_keep_their_fast_way(network: Any) -> None:
    model = network()
    _, inputs, targets = batch_of(model)
    sums = ClippedSums(model, PerExample(clip=0.3, noise_multiplier=1.0, expected=4.0))
    sums.verify(inputs, targets)
    assert not sums.one_by_one


def test_examples_without_a_target_verify_nothing() -> None:
    """The goldfish loss may silence all targets of the first rows, whose gradients are zero in every way."""

    class ReusedTokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(5, 5, bias=False), nn.Linear(5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.relu(self.first(x))
            out: torch.Tensor = self.last(h + torch.relu(F.linear(h, self.first.weight)))
            return out

    def goes_one_by_one(targets: list[list[int]]) -> bool:
        inputs = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0)).numpy()
        rows = Examples(inputs=inputs, targets=np.array(targets), ids=np.arange(4))
        client = DpSgd(lr=0.3, batch_size=4, steps=1, clip=0.3, noise_multiplier=1.0)
        sums = OneByOne(ReusedTokens(), client, rows)._sums
        assert sums is not None
        return sums.one_by_one

    assert goes_one_by_one([[-1, -1], [-1, -1], [0, 1], [3, -1]])
    assert not goes_one_by_one([[-1, -1]] * 4), "without any target nothing can differ"
