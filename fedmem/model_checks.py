"""What a torch module must be like for its parameters to stand for it: all trained, and all that there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def frozen(module: nn.Module) -> str | None:
    """Which parameters are frozen (`requires_grad` is False), as the middle of a message; None where none is.

    >>> from torch import nn
    >>> layer = nn.Linear(4, 3)
    >>> frozen(layer) is None
    True
    >>> layer.weight.requires_grad_(False).shape
    torch.Size([3, 4])
    >>> frozen(layer)
    "1 of 2 parameters frozen (requires_grad is False), such as 'weight': 12 of 15 numbers"
    """
    parameters = dict(module.named_parameters())
    names = [name for name, value in parameters.items() if not value.requires_grad]
    if not names:
        return None
    count = sum(parameters[name].numel() for name in names)
    total = sum(value.numel() for value in parameters.values())
    return (
        f"{len(names)} of {len(parameters)} parameters frozen (requires_grad is False), such as {names[0]!r}: "
        f"{count} of {total} numbers"
    )


def mismatch(module: nn.Module, arrays: Mapping[str, Tensor]) -> str | None:
    """Why these arrays of an app are not the parameters of the module; None where names and shapes agree.

    >>> from torch import nn
    >>> layer = nn.Linear(4, 3)
    >>> mismatch(layer, dict(layer.named_parameters())) is None
    True
    >>> mismatch(layer, {"weight": layer.weight}).partition(";")[0]
    "the app's arrays lack 1 of the 2 parameters of the model, such as 'bias'"
    """
    wanted = dict(module.named_parameters())
    buffers = {name for name, _ in module.named_buffers()}
    unknown = sorted(arrays.keys() - wanted.keys())
    missing = [name for name in wanted if name not in arrays]
    sent_buffers = [name for name in unknown if name in buffers]
    if sent_buffers:
        return (
            f"the app's arrays hold the buffer {sent_buffers[0]!r}, such as the running statistics of BatchNorm, but "
            "models are read from their parameters alone; use GroupNorm or LayerNorm, or send named_parameters() of a "
            "model without buffers"
        )
    if unknown:
        odd = min([*unknown, *missing])
        return (
            f"the model and the app's arrays do not agree on parameter {odd!r}, which only "
            f"{'the model has' if odd in wanted else 'the arrays have'}; give the architecture that the app trains"
        )
    if missing:
        return (
            f"the app's arrays lack {len(missing)} of the {len(wanted)} parameters of the model, such as "
            f"{missing[0]!r}; send all of them, or give the model whose parameters are those that are sent"
        )
    for name, value in wanted.items():
        if tuple(arrays[name].shape) != tuple(value.shape):
            return (
                f"parameter {name!r} has shape {tuple(arrays[name].shape)} in the app's arrays and "
                f"{tuple(value.shape)} in the model; give the architecture that the app trains"
            )
    return None


def running_statistics(module: nn.Module) -> str | None:
    """The name of the first layer whose output depends on running statistics, which are no parameters; else None.

    >>> from torch import nn
    >>> running_statistics(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    '1'
    """
    for name, part in module.named_modules():
        if getattr(part, "running_mean", None) is not None:
            return str(name)
    return None
