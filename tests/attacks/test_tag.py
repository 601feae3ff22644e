"""Texts from gradients: every token of a model that keeps their places, and nothing from a broken gradient."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.attacks.tag import Tag
from fedmem.contracts.arrays import IntArray
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.errors import ComponentError, TargetError
from fedmem.modalities.texts import Texts
from tests.lab import digits, network, parameters
from tests.lab import target_of as image_target
from tests.recovered import right_tokens

TOKENS, LENGTH, CLASSES = 60, 6, 4


class Text(nn.Module):
    """Embeds tokens, lays them end to end, and tells classes of texts apart."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 12)
        self.hidden, self.output = nn.Linear(12 * LENGTH, 32), nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.output(torch.tanh(self.hidden(self.embedding(x.long()).flatten(1))))
        return found


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Text()


def target_of(model: nn.Module, tokens: IntArray, labels: IntArray, scale: float = 1.0) -> GradientTarget:
    outputs = model(torch.from_numpy(tokens))
    slopes = torch.autograd.grad(
        nn.functional.cross_entropy(outputs, torch.from_numpy(labels)), list(model.parameters())
    )
    params = parameters(model)
    return GradientTarget(
        model=model,
        params=params,
        gradient={name: scale * value for name, value in zip(params, slopes, strict=True)},
        num_images=len(tokens),
        input_shape=(LENGTH,),
        num_classes=CLASSES,
        modality=Texts(),
        knows="",
    )


def texts(count: int, seed: int = 0) -> tuple[IntArray, IntArray]:
    rng = np.random.default_rng(seed)
    return rng.integers(TOKENS, size=(count, LENGTH)), np.sort(rng.integers(CLASSES, size=count))


def attacked(target: GradientTarget, **fields: Any) -> Reconstruction:
    (found,) = Tag(**{"steps": 150, **fields}).reconstruct([target], [np.random.default_rng(1)])
    return found


def recall(found: Reconstruction, tokens: IntArray) -> float:
    return float(right_tokens(found.inputs.astype(np.int64), tokens).mean())


def test_one_text_comes_back_word_for_word(model: nn.Module) -> None:
    for seed in range(3):
        tokens, labels = texts(1, seed)
        found = attacked(target_of(model, tokens, labels))
        np.testing.assert_array_equal(found.inputs, tokens)
        assert found.inputs.dtype == np.float32
        assert found.labels.tolist() == labels.tolist()
        assert found.distance < 1e-9, "the tokens explain the whole gradient"


@pytest.mark.parametrize("scale", [-1.0, 0.2])
def test_tag_recovers_less_from_gradients_of_wrong_sign_or_scale(model: nn.Module, scale: float) -> None:
    """Of one text alone, the embeddings are quotients that know neither; of several they are not."""
    right, wrong = [], []
    for seed in range(2):
        tokens, labels = texts(3, seed)
        found = attacked(target_of(model, tokens, labels, scale), steps=300)
        wrong.append(recall(found, tokens))
        assert found.distance > 0.3
        right.append(recall(attacked(target_of(model, tokens, labels), steps=300), tokens))
    assert np.mean(right) > 0.9
    assert np.mean(wrong) < np.mean(right) - 0.3


def test_tag_recovers_more_with_restarts_and_touched_rows(model: nn.Module) -> None:
    tokens, labels = texts(3)
    target = target_of(model, tokens, labels)
    one, several = attacked(target, steps=300), attacked(target, steps=300, restarts=3)
    assert several.distance <= one.distance
    assert recall(several, tokens) > 0.7
    hasty, touched = attacked(target, steps=30), attacked(target, steps=30, vocabulary="touched")
    assert np.isin(touched.inputs, tokens).all(), "rows of the embedding without a gradient were not there"
    assert not np.isin(hasty.inputs, tokens).all()
    assert recall(touched, tokens) > recall(hasty, tokens)


def test_the_weight_of_absolute_values_reaches_the_objective(model: nn.Module) -> None:
    target = target_of(model, *texts(3, seed=1))
    without, heavy = attacked(target, steps=300, l1=0.0), attacked(target, steps=300, l1=1.0)
    assert heavy.distance != without.distance


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_empty_gradient_is_nan_and_leaves_other_texts_unchanged(model: nn.Module, value: float) -> None:
    target = target_of(model, *texts(1))
    blank = replace(target, gradient={name: torch.full_like(g, value) for name, g in target.gradient.items()})
    rngs = [np.random.default_rng(i) for i in (1, 1)]
    found, beside = Tag(steps=150).reconstruct([blank, target], rngs)
    assert math.isnan(found.distance)
    assert found.inputs.shape == (1, LENGTH)
    np.testing.assert_array_equal(beside.inputs, attacked(target).inputs)


def test_tag_uses_known_labels_only_if_configured(model: nn.Module) -> None:
    target = replace(target_of(model, *texts(1)), labels=np.array([3]))
    assert Tag().knows == ()
    assert Tag(labels="known").knows == ("labels",)
    assert attacked(target.grant(("labels",)), steps=1, labels="known").labels.tolist() == [3]


def test_tag_refuses_inputs_without_embedding_and_removes_hooks(model: nn.Module) -> None:
    plain = network()
    with pytest.raises(ComponentError, match="sequences of tokens"):
        attacked(image_target(plain, parameters(plain), digits().take(np.arange(1))))
    target = target_of(model, *texts(1))
    with pytest.raises(TargetError, match="num_images is 0"):
        attacked(replace(target, num_images=0))
    attacked(target, steps=2)
    assert not any(part._forward_hooks for part in model.modules())
