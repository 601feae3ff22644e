"""Networks of torchvision have the logits of torchvision's own, for any channels, with weights from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.func import functional_call, grad

from fedmem.clients.sgd import Sgd
from fedmem.contracts.data import Examples
from fedmem.contracts.model import network_notes
from fedmem.errors import ComponentError
from fedmem.models.torchvision import Torchvision, sizes_of
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Stacked, Task

models: Any = pytest.importorskip("torchvision").models
SIZES: dict[str, Any] = {"patch_size": 4, "layers": 2, "heads": 2, "width": 8}


def own_vit(classes: int = 5) -> Any:
    """A small transformer of torchvision itself, whose head has other weights than zeros."""
    own = models.VisionTransformer(8, 4, 2, 2, 8, 32, num_classes=classes)
    torch.nn.init.normal_(own.heads.head.weight)
    return own


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_vision_transformer_is_torchvisions_own(suffix: str, tmp_path: Path) -> None:
    own, file = own_vit(), tmp_path / f"vit{suffix}"
    if suffix == ".pt":
        torch.save(own.state_dict(), file)
    else:
        save_file(own.state_dict(), file)
    network = Torchvision(**SIZES, weights=str(file)).build((3, 8, 8), 5)
    images = torch.rand(4, 3, 8, 8)
    for mode in (True, False):
        torch.testing.assert_close(network.train(mode)(images), own.train(mode)(images), rtol=1e-4, atol=1e-5)
    assert network(torch.rand(0, 3, 8, 8)).shape == (0, 5), "no images"
    assert network_notes(network) == (f"32 tensors (2,245 numbers) are from {file}",)


def test_vit_b_16_has_the_parameters_of_torchvision() -> None:
    with torch.device("meta"):
        own = models.vit_b_16(image_size=32, num_classes=10)
        network = Torchvision(architecture="vit_b_16").build((3, 32, 32), 10)
    assert [(name, value.shape) for name, value in network.named_parameters()] == [
        (name, value.shape) for name, value in own.named_parameters()
    ]


def test_a_resnet_with_its_own_stem_is_torchvisions_own(tmp_path: Path) -> None:
    own = models.resnet18(num_classes=5).eval()
    save_file(own.state_dict(), tmp_path / "r.safetensors")
    model = Torchvision(architecture="resnet18", stem="imagenet", weights=str(tmp_path / "r.safetensors"))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model.build((3, 32, 32), 5).eval()(images), own(images))


def test_the_small_stem_keeps_height_and_width() -> None:
    network: Any = Torchvision(architecture="resnet18").build((1, 28, 28), 5).eval()
    shapes = []
    network.layer1.register_forward_hook(lambda part, inputs, output: shapes.append(tuple(output.shape)))
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 5)
    assert shapes == [(2, 64, 28, 28)]
    assert network.conv1.weight.shape == (64, 1, 3, 3)
    # He et al.: the variance is two over the outputs of a place
    assert float(network.conv1.weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)
    grey: Any = Torchvision(architecture="resnet18", stem="imagenet").build((1, 64, 64), 5)
    assert grey.conv1.weight.shape == (64, 1, 7, 7)


def test_another_number_of_classes_draws_the_head_and_says_so(tmp_path: Path) -> None:
    own = own_vit(classes=7)
    torch.save(own.state_dict(), tmp_path / "vit.pt")
    network: Any = Torchvision(**SIZES, weights=str(tmp_path / "vit.pt")).build((3, 8, 8), 5)
    assert torch.equal(network.conv_proj.weight, own.conv_proj.weight)
    assert network.heads.head.weight.shape == (5, 8)
    assert bool(network.heads.head.weight.any())
    (note,) = network_notes(network)
    assert "2 are fresh (45 numbers): heads.head.weight, heads.head.bias" in note
    assert note.endswith("since the file has 7 classes")


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = own_vit().state_dict()
    del state["encoder.ln.bias"]
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "vit.pt")
    model = Torchvision(**SIZES, weights=str(tmp_path / "vit.pt"))
    with pytest.raises(ComponentError, match=r"it lacks encoder\.ln\.bias; the network has no extra") as caught:
        model.build((3, 8, 8), 5)
    assert caught.value.path == "model.weights"
    with pytest.raises(ComponentError, match=r"conv_proj\.weight is 8x3x4x4 there, 8x1x4x4 in the network"):
        model.build((1, 8, 8), 5)
    with pytest.raises(ComponentError, match="there is no such file"):
        Torchvision(**SIZES, weights=str(tmp_path / "absent.pt")).build((3, 8, 8), 5)
    torch.save({"w": Path("trap")}, tmp_path / "evil.pt")
    with pytest.raises(ComponentError, match="reading them runs code"):
        Torchvision(**SIZES, weights=str(tmp_path / "evil.pt")).build((3, 8, 8), 5)


def test_names_of_older_files_are_understood(tmp_path: Path) -> None:
    own = own_vit()
    old = {
        name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
        for name, value in own.state_dict().items()
    }
    assert any("linear_2" in name for name in old)
    torch.save(old, tmp_path / "old.pt")
    network = Torchvision(**SIZES, weights=str(tmp_path / "old.pt")).build((3, 8, 8), 5)
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in network.state_dict().items())
    resnet = models.resnet18(num_classes=5).state_dict()
    torch.save({name: value for name, value in resnet.items() if "num_batches" not in name}, tmp_path / "r.pt")
    Torchvision(architecture="resnet18", stem="imagenet", weights=str(tmp_path / "r.pt")).build((3, 32, 32), 5)


def test_a_stack_of_transformers_is_each_alone() -> None:
    torch.manual_seed(0)
    rng, model = np.random.default_rng(0), Torchvision(**SIZES).build((1, 8, 8), 5)
    store = Examples(
        inputs=rng.random((20, 1, 8, 8), dtype=np.float32), targets=rng.integers(5, size=20), ids=np.arange(20)
    )
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    client = Sgd(lr=0.1, epochs=2, batch_size=4)
    tasks = [
        Task(
            run=i,
            round=1,
            client=i,
            before=before,
            rows=rng.permutation(20)[:size],
            batches=client.batches(size, np.random.default_rng(i)),
            payload={"round": torch.tensor(1.0)},
        )
        for i, size in enumerate([7, 1, 12])
    ]
    plain = OneByOne(model, client, store).train(tasks)
    for one, other in zip(plain, Stacked(model, client, store).train(tasks), strict=True):
        for name, value in one.outcome.sent.items():
            torch.testing.assert_close(other.outcome.sent[name], value, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain[2].outcome.sent["conv_proj.weight"], before["conv_proj.weight"], rtol=1e-3)


def test_gradients_of_attention_are_torchs() -> None:
    own = own_vit()
    network = Torchvision(**SIZES).build((3, 8, 8), 5)
    network.load_state_dict(own.state_dict())
    images = torch.rand(3, 3, 8, 8)

    def loss(module: torch.nn.Module) -> dict[str, torch.Tensor]:
        params = {name: value.detach() for name, value in module.named_parameters()}
        gradients: dict[str, torch.Tensor] = grad(
            lambda params: functional_call(module, params, (images,)).square().sum()
        )(params)
        return gradients

    gradients = loss(own)
    for name, value in loss(network).items():
        torch.testing.assert_close(value, gradients[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "shape", "place", "said"),
    [
        ({}, (20,), "model.kind", "needs images"),
        ({}, (1, 8, 12), "model.image_size", "images are 8x12, but the network takes 8x8"),
        ({"image_size": 16}, (1, 8, 8), "model.image_size", "takes 16x16"),
        ({"patch_size": 3}, (1, 8, 8), "model.patch_size", "use one of 1, 2, 4, 8"),
    ],
)
def test_images_that_do_not_fit_are_refused(fields: Any, shape: tuple[int, ...], place: str, said: str) -> None:
    with pytest.raises(ComponentError, match=said) as caught:
        Torchvision(**fields).build(shape, 5)
    assert caught.value.path == place


def test_fields_of_other_architectures_are_refused() -> None:
    with pytest.raises(ComponentError, match="belongs to vision transformers, not to resnet18") as caught:
        Torchvision(architecture="resnet18", layers=3)
    assert caught.value.path == "layers"
    with pytest.raises(ComponentError, match="50 cannot be divided among 4 heads; use 52"):
        Torchvision(width=50)
    assert sizes_of(Torchvision(width=8, heads=2))["mlp_width"] == 32
    assert sizes_of(Torchvision(architecture="vit_b_16"))["mlp_width"] == 3072
