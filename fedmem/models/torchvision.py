"""ResNets and vision transformers of torchvision, with weights from a file or drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types

from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import nn

_SIZES = {
    "vit": {"patch_size": 4, "layers": 4, "heads": 4, "width": 64, "mlp_width": 256},
    "vit_b_16": {"patch_size": 16, "layers": 12, "heads": 12, "width": 768, "mlp_width": 3072},
}


@dataclass(frozen=True, kw_only=True)
class Torchvision:
    """A network of `torchvision.models` for images (channels, height, width); logits (n, C).

    `resnet18` and `resnet34` are residual networks with BatchNorm (He et al., 2016). `vit_b_16` is the vision
    transformer of Dosovitskiy et al. (2021) for square images, and `vit` a small one of the same class. The first layer
    is made for the channels of the data. Parameters and initialisation are those of torchvision, with one exception:
    the last layer of vision transformers is drawn like other linear layers. In torchvision it begins with zeros, which
    would give all other layers a gradient of zero at first. Attention is written as products, so that clients with
    vision transformers are trained as one stack. Clients with ResNets are trained one by one.

    Fields

    - `architecture`: the network.
    - `stem`: for ResNets, the first layers. `small` is a 3x3 convolution without pooling, for images of about 32x32.
      `imagenet` is a 7x7 convolution and pooling, which divide height and width by four.
    - `image_size`: for vision transformers, height and width of the images; null for those of the data.
    - `patch_size`: for vision transformers, height and width of a square of the image; divides the image size.
    - `layers`: for vision transformers, the number of blocks.
    - `heads`: for vision transformers, the number of heads of each attention layer.
    - `width`: for vision transformers, the length of the vector for each square; a multiple of `heads`.
    - `mlp_width`: for vision transformers, the width between the two linear layers of a block; null for four times
      `width`. Other sizes that are null are those of the architecture.
    - `weights`: a file with weights of the same architecture, in safetensors or as a state dict of torch; empty to draw
      them. A relative path starts from the folder in which fedmem is started. All names and shapes must fit. Only the
      last layer may have another number of classes: it is drawn, and `fedmem check` says so.

    Guarantees:

    - with the same weights, logits are those of torchvision's own network, up to rounding;
    - nothing is downloaded, and no code in a file is run.

    Errors: `ComponentError` if torchvision or the file is missing, weights do not fit, sizes do not divide, or inputs
    are no images.

    >>> Torchvision(architecture="vit_b_16").stackable, Torchvision(architecture="resnet18").stackable
    (True, False)

    References: He, Zhang, Ren and Sun (2016), Deep Residual Learning for Image Recognition. Dosovitskiy et al. (2021),
    An Image is Worth 16x16 Words. TorchVision maintainers and contributors (2016), TorchVision.
    """

    packages: ClassVar[tuple[str, ...]] = ("torchvision",)

    architecture: Literal["vit", "vit_b_16", "resnet18", "resnet34"] = "vit"
    stem: Literal["small", "imagenet"] = "small"
    image_size: Annotated[int, annotated_types.Ge(1)] | None = None
    patch_size: Annotated[int, annotated_types.Ge(1)] | None = None
    layers: Annotated[int, annotated_types.Ge(1)] | None = None
    heads: Annotated[int, annotated_types.Ge(1)] | None = None
    width: Annotated[int, annotated_types.Ge(1)] | None = None
    mlp_width: Annotated[int, annotated_types.Ge(1)] | None = None
    weights: str = ""

    def __post_init__(self) -> None:
        sizes = sizes_of(self)
        given = [name for name in ("image_size", *_SIZES["vit"]) if getattr(self, name) is not None]
        if not sizes and given:
            message = f"belongs to vision transformers, not to {self.architecture}; leave it out"
            raise ComponentError(given[0], message)
        if sizes and sizes["width"] % sizes["heads"]:
            width, heads = sizes["width"], sizes["heads"]
            raise ComponentError(
                "width", f"{width} cannot be divided among {heads} heads; use {(width // heads + 1) * heads}"
            )

    @property
    def stackable(self) -> bool:
        """Whether clients are trained as a stack; convolutions are faster one client at a time."""
        return bool(sizes_of(self))

    def input_files(self) -> tuple[Path, ...]:
        """The file of the weights, if there is one."""
        return (Path(self.weights).expanduser(),) if self.weights else ()

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """The network, from torch's own generator."""
        try:
            from fedmem.models._torchvision import build_network
        except ModuleNotFoundError as error:
            message = "torchvision is not installed; run: pip install 'fedmem[torchvision]'"
            raise ComponentError("model.kind", message) from error
        if len(input_shape) != 3:
            raise ComponentError(
                "model.kind",
                f"torchvision needs images (channels, height, width), but inputs have shape {tuple(input_shape)}; "
                "choose `model: {kind: mlp}`",
            )
        if sizes_of(self):
            self._check_sizes(input_shape)
        return build_network(self, input_shape, num_classes)

    def _check_sizes(self, input_shape: tuple[int, ...]) -> None:
        """Errors: `ComponentError` if the images are not square or the squares do not divide them."""
        _, height, width = input_shape
        size = self.image_size or height
        if (height, width) != (size, size):
            raise ComponentError(
                "model.image_size",
                f"images are {height}x{width}, but the network takes {size}x{size}; resize them in the data set, such "
                f"as `size: {size}`",
            )
        patch = sizes_of(self)["patch_size"]
        if size % patch:
            fitting = ", ".join(str(n) for n in range(1, size + 1) if size % n == 0)
            message = f"squares of {patch} pixels do not divide images of {size}x{size}; use one of {fitting}"
            raise ComponentError("model.patch_size", message)


def sizes_of(model: Torchvision) -> dict[str, int]:
    """The sizes of a vision transformer, from the fields or else from the architecture; empty for a ResNet.

    >>> sizes_of(Torchvision(width=8, heads=2))
    {'patch_size': 4, 'layers': 4, 'heads': 2, 'width': 8, 'mlp_width': 32}
    """
    sizes = _SIZES.get(model.architecture, {})
    if model.width is not None and sizes:
        sizes = {**sizes, "mlp_width": 4 * model.width}
    given = {name: getattr(model, name) for name in sizes}
    return {name: value if given[name] is None else given[name] for name, value in sizes.items()}
