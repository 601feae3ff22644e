"""Tests of `fedmem/training/sampling.py`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from fedmem.contracts.data import Examples
from fedmem.errors import ComponentError
from fedmem.modalities.images import Images
from fedmem.modalities.text.language_model import State
from fedmem.modalities.texts import Texts
from fedmem.models.char_rnn import CharRnn
from fedmem.models.transformer import Transformer
from fedmem.training.sampling import draw_samples, draw_texts, require_sampling


class _Table:
    """The next token depends on the last one alone, with probabilities (V, V)."""

    def __init__(self, shares: Sequence[Sequence[float]]) -> None:
        self.logits = torch.tensor(shares, dtype=torch.float64).log()

    def start(self, batch: int) -> State:
        return (torch.zeros(batch),)

    def advance(self, state: State, tokens: Tensor) -> tuple[Tensor, State]:
        return self.logits[tokens], state

    def select(self, state: State, rows: Tensor) -> State:
        return (state[0][rows],)


class _Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))
        self.train()

    def sample(self, count: int, generator: Generator) -> Tensor:
        assert not self.training
        return self.shift + torch.rand(count, 2, generator=generator)


def _generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def _rows(first: Sequence[int], length: int) -> Examples:
    inputs = np.repeat(np.array(first)[:, None], length, axis=1)
    return Examples(inputs=inputs, targets=inputs, ids=np.arange(len(first)))


def test_texts_have_the_frequencies_of_the_model() -> None:
    shares = [[0.7, 0.3, 0.0], [0.2, 0.3, 0.5], [0.0, 0.0, 1.0]]
    texts = draw_texts(_Table(shares), np.zeros(20_000, dtype=np.int64), 2, _generator())
    pairs = texts[:, 1] * 3 + texts[:, 2]
    expected = np.array([[shares[0][a] * shares[a][b] for b in range(3)] for a in range(3)]).ravel()
    np.testing.assert_allclose(np.bincount(pairs, minlength=9) / len(pairs), expected, atol=0.015)
    assert not np.bincount(pairs, minlength=9)[expected == 0].any()


def test_models_that_are_equal_draw_equal_texts() -> None:
    first = np.array([0, 1] * 100)
    once, again, other = (
        draw_texts(_Table(shares), first, 5, _generator())
        for shares in ([[0.5, 0.5]] * 2, [[0.5, 0.5]] * 2, [[0.52, 0.48]] * 2)
    )
    np.testing.assert_array_equal(once, again)
    assert 0 < (once != other).mean() < 0.05
    assert (once != draw_texts(_Table([[0.5, 0.5]] * 2), first, 5, _generator(1))).any()


def test_a_model_of_nan_draws_no_token() -> None:
    broken = [[0.0, 1.0], [np.nan, 1.0]]
    assert draw_texts(_Table(broken), np.array([0]), 3, _generator()).tolist() == [[0, 1, -1, -1]]


@pytest.mark.parametrize("model", [Transformer(width=4, heads=1, layers=1), CharRnn(embedding=2, hidden=3)])
def test_networks_of_texts_begin_with_public_tokens(model: Transformer | CharRnn) -> None:
    network = model.build((4,), 3)
    params = {name: value.detach() + 0.1 for name, value in network.named_parameters()}
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    texts = draw_samples(network, params, Texts(), _rows([2, 0], 4), 5, _generator())
    assert texts.shape == (5, 5)
    assert texts[:, 0].tolist() == [2, 0, 2, 0, 2]
    assert ((texts >= 0) & (texts < 3)).all()
    assert all(torch.equal(before[name], value) for name, value in network.named_parameters())


def test_networks_that_sample_use_the_weights_given() -> None:
    network = _Shifted()
    rows = Examples(inputs=np.zeros((1, 2), np.float32), targets=np.zeros(1, np.int64), ids=np.zeros(1, np.int64))
    drawn = draw_samples(network, {"shift": torch.tensor([5.0, 7.0])}, Images(), rows, 3, _generator())
    np.testing.assert_allclose(drawn, np.array([5, 7]) + torch.rand(3, 2, generator=_generator()).numpy(), rtol=1e-6)
    assert network.training
    assert network.shift.tolist() == [0.0, 0.0]


class _Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def sample(self, count: int, generator: Generator) -> Tensor:
        mean = self.norm.running_mean
        assert mean is not None
        return mean.repeat(count, 1)


def test_networks_that_sample_use_the_statistics_given() -> None:
    rows = Examples(inputs=np.zeros((1, 2), np.float32), targets=np.zeros(1, np.int64), ids=np.zeros(1, np.int64))
    given = {"norm.running_mean": torch.tensor([5.0, 7.0])}
    assert draw_samples(_Counting(), given, Images(), rows, 2, _generator()).tolist() == [[5.0, 7.0]] * 2


def test_a_sum_below_the_draw_means_the_last_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *shape, generator, dtype: torch.ones(*shape, dtype=dtype))
    assert draw_texts(_Table([[0.4, 0.6]] * 2), np.array([0]), 2, _generator()).tolist() == [[0, 1, 1]]


def test_a_classifier_is_refused() -> None:
    with pytest.raises(ComponentError, match=r"signals draws samples, but Linear is no generative model"):
        require_sampling(nn.Linear(2, 2), Images(), "signals")
