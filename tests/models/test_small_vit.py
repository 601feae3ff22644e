"""The small vision transformer: by hand, one image at a time, and as a stack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedmem.clients.sgd import Sgd
from fedmem.contracts.data import Examples
from fedmem.errors import ComponentError
from fedmem.models._small_vit import to_squares
from fedmem.models.small_vit import SmallViT
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Stacked, Task

SMALL = SmallViT(patch=4, width=8, heads=2, layers=2)


def network(shape: tuple[int, ...] = (2, 8, 12)) -> torch.nn.Module:
    torch.manual_seed(0)
    return SMALL.build(shape, 5)


def test_logits_are_those_of_torch_layers() -> None:
    module: Any = network().double()
    images = torch.rand(3, 2, 8, 12, dtype=torch.float64)
    kernel = module.patches.weight.reshape(8, 2, 4, 4)
    squares = torch.nn.functional.conv2d(images, kernel, module.patches.bias, stride=4).flatten(2).transpose(1, 2)
    x = squares + module.places.weight
    for block in module.blocks:
        layer = torch.nn.TransformerEncoderLayer(
            8, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True, dtype=torch.float64
        )
        parts = {
            "self_attn.in_proj_": block.asks,
            "self_attn.out_proj.": block.mixes,
            "norm1.": block.norm1,
            "norm2.": block.norm2,
            "linear1.": block.widens,
            "linear2.": block.narrows,
        }
        layer.load_state_dict(
            {f"{name}{end}": getattr(part, end) for name, part in parts.items() for end in ("weight", "bias")}
        )
        x = layer(x)
    expected = module.output(module.norm(x).mean(dim=1))
    torch.testing.assert_close(module(images), expected)


def test_squares_are_cut_row_after_row() -> None:
    images = torch.arange(2 * 4 * 8.0).reshape(1, 2, 4, 8)
    squares = to_squares(images, 4)
    assert squares.shape == (1, 2, 32)
    torch.testing.assert_close(squares[0, 1].reshape(2, 4, 4), images[0, :, :, 4:])
    assert network()(torch.rand(0, 2, 8, 12)).shape == (0, 5), "no images"


def test_places_are_told_apart() -> None:
    module, images = network(), torch.rand(1, 2, 8, 12)
    moved = torch.cat([images[..., 4:8], images[..., :4], images[..., 8:]], dim=3)
    assert not torch.allclose(module(images), module(moved), atol=1e-6)


def test_a_stack_of_clients_is_each_alone() -> None:
    client = Sgd(lr=0.3, epochs=2, batch_size=4)
    rng, model = np.random.default_rng(0), network()
    store = Examples(
        inputs=rng.random((30, 2, 8, 12), dtype=np.float32), targets=rng.integers(5, size=30), ids=np.arange(30)
    )
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    tasks = [
        Task(
            run=i,
            round=1,
            client=i,
            before=before,
            rows=rng.permutation(30)[:size],
            batches=client.batches(size, np.random.default_rng(i)),
            payload={"round": torch.tensor(1.0)},
        )
        for i, size in enumerate([7, 1, 20])
    ]
    plain = OneByOne(model, client, store).train(tasks)
    for one, other in zip(plain, Stacked(model, client, store).train(tasks), strict=True):
        for name, value in one.outcome.sent.items():
            torch.testing.assert_close(other.outcome.sent[name], value, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(plain[2].outcome.sent["patches.weight"], before["patches.weight"], rtol=1e-3)


def test_small_vit_refuses_what_it_cannot_cut() -> None:
    with pytest.raises(ComponentError, match=r"choose `model: \{kind: mlp\}`"):
        SmallViT().build((20,), 3)
    with pytest.raises(ComponentError, match="images of 8x10; use one of 1, 2") as caught:
        SmallViT().build((1, 8, 10), 3)
    assert caught.value.path == "model.patch"
    with pytest.raises(ComponentError, match="10 cannot be divided among 4 heads; use 8 or 12"):
        SmallViT(width=10)
