"""Do tables, texts and exact inputs come back as is said, beyond what guesses get, and where do they not?"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.stats import t
from torch import nn

from fedmem.attacks.linear_layer import LinearLayer
from fedmem.attacks.tabular import Tabular
from fedmem.attacks.tag import Tag
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import GradientTarget
from fedmem.contracts.data import Dataset
from fedmem.datasets.adult import Adult
from fedmem.fetched import files
from fedmem.modalities.tables import Tables, modal_row, tolerances
from fedmem.modalities.texts import Texts
from fedmem.seeding import stream
from tests.lab import digits, network, parameters, target_of
from tests.narrowing import instance
from tests.recovered import independent_rows, right_cells, right_tokens

pytestmark = pytest.mark.statistical


def interval(differences: FloatArray) -> tuple[float, float]:
    """95 % of Student's, over batches."""
    spread = differences.std(ddof=1) / len(differences) ** 0.5
    low, high = t.interval(0.95, len(differences) - 1, loc=differences.mean(), scale=spread)
    return float(low), float(high)


@cache
def adult() -> Dataset:
    folder = files.cache_folder() / "adult"
    if not all((folder / file).is_file() for file in Adult.published.files):
        pytest.skip("adult is not fetched here")
    return Adult(rows=3000, test=10).load(np.random.default_rng(0))


@cache
def tables(
    size: int, sign: float = 1.0, columns: Literal["touched", "all"] = "touched"
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(8,) shares of cells that are right in batches of this size: of the attack, the usual row, independent rows."""
    data, rng = adult(), np.random.default_rng(size)
    population = data.train.inputs[2000:]
    blocks = instance(data.modality, Tables).blocks
    allowed = tolerances(population, blocks)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(93, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 2))
    batches = [data.train.take(rng.choice(2000, size, replace=False)) for _ in range(8)]
    targets = [
        replace(
            target_of(model, parameters(model), rows),
            num_classes=2,
            modality=data.modality,
            labels=np.sort(rows.targets),
        )
        for rows in batches
    ]
    signed = [replace(one, gradient={n: sign * g for n, g in one.gradient.items()}) for one in targets]
    rngs = [stream(0, "attack", client=i) for i in range(len(signed))]
    found = Tabular(steps=200, restarts=6, labels="known", columns=columns).reconstruct(signed, rngs)
    guesses = (
        [one.inputs for one in found],
        [np.repeat(modal_row(population, blocks), size, axis=0)] * len(batches),
        [independent_rows(population, blocks, size, rng) for _ in batches],
    )
    own, usual, drawn = (
        np.array([right_cells(g, b.inputs, blocks, allowed).mean() for g, b in zip(some, batches, strict=True)])
        for some in guesses
    )
    return own, usual, drawn


@pytest.mark.parametrize("size", [1, 8])
def test_records_of_adult_come_back_better_than_either_guess(size: int) -> None:
    own, usual, drawn = tables(size)
    assert interval(own - usual)[0] > 0.05
    assert interval(own - drawn)[0] > 0.05
    assert own.mean() > (0.95 if size == 1 else 0.65)


def test_records_of_adult_do_not_come_back_from_the_wrong_sign() -> None:
    """But for its columns without a gradient, which have no sign and give the categories of a single record away."""
    own, usual, _ = tables(1, sign=-1.0, columns="all")
    assert own.mean() < usual.mean() + 0.1
    assert own.mean() < tables(1, columns="all")[0].mean() - 0.3


def test_leaving_out_columns_without_a_gradient_gives_away_more() -> None:
    assert interval(tables(8)[0] - tables(8, columns="all")[0])[0] > 0


def test_a_record_alone_is_easier_than_eight_together() -> None:
    assert interval(tables(1)[0] - tables(8)[0])[0] > 0


@pytest.mark.parametrize(("activation", "least"), [(nn.ReLU, 0.85), (nn.Tanh, 0.0)])
def test_examples_claimed_exact_are_exact(activation: type[nn.Module], least: float) -> None:
    """Batches of 8 digits: nearly all move a ReLU alone sooner or later; false ones are under 1 in 200."""
    claimed = false = 0
    for i in range(60):
        model, rows = network(activation, seed=i), digits().take(np.arange(8 * i, 8 * i + 8))
        (found,) = LinearLayer().reconstruct([target_of(model, parameters(model), rows)], [stream(0, "x")])
        if found.distance < 1:
            errors = np.abs(found.inputs[:, None] - rows.inputs[None]).reshape(len(found.inputs), 8, -1).max(2)
            claimed += len(found.inputs)
            false += int((errors.min(1) > 1e-3).sum())
    assert claimed >= least * 8 * 60
    assert false <= max(1, claimed / 200)
    if activation is nn.Tanh:
        assert claimed <= 2, "nobody moves a unit alone there"


class Attentive(nn.Module):
    """Self-attention over embedded tokens with learnt places, then a mean over the text."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.place = nn.Embedding(60, 16), nn.Parameter(0.3 * torch.randn(6, 16))
        self.attention, self.hidden = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 32)
        self.output = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.embedding(x.long()) + self.place
        seen, _ = self.attention(inner, inner, inner)
        found: torch.Tensor = self.output(torch.tanh(self.hidden(inner + seen)).mean(1))
        return found


def test_attention_words_are_recovered_above_random_draws() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Attentive()
    rng, recalls, drawn = np.random.default_rng(0), [], []
    for i in range(5):
        tokens, labels = rng.integers(60, size=(1, 6)), rng.integers(4, size=1)
        loss = nn.functional.cross_entropy(model(torch.from_numpy(tokens)), torch.from_numpy(labels))
        gradient = dict(zip(parameters(model), torch.autograd.grad(loss, list(model.parameters())), strict=True))
        target = GradientTarget(
            model=model, params=parameters(model), gradient=gradient, num_images=1, input_shape=(6,), num_classes=4,
            modality=Texts(), knows="",
        )  # fmt: skip
        (found,) = Tag(steps=600).reconstruct([target], [stream(0, "x", client=i)])
        recalls.append(right_tokens(found.inputs.astype(np.int64), tokens)[0])
        drawn.append(right_tokens(rng.integers(60, size=(1, 6)), tokens)[0])
    assert interval(np.array(recalls) - np.array(drawn))[0] > 0
