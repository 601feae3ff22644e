"""Notes beside the result of an attack: what it assumes, and what contradicts the knowledge that it was granted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmem.contracts.arrays import Params
from fedmem.contracts.model import frozen_tensors
from fedmem.contracts.training_mode import layers_with_statistics

if TYPE_CHECKING:
    from torch import nn


def evaluation_mode(model: nn.Module, mode: str) -> tuple[str, ...]:
    """The assumption of the attack about layers with running statistics."""
    if mode == "eval" or not layers_with_statistics(model):
        return ()
    return (
        "the attack reads BatchNorm in evaluation mode, with the running statistics of the model before the update. A "
        "client in training mode normalises by its batches, which the attack does not know, so that a bad match may "
        "come from there",
    )


def contradictions(before: Params, after: Params, model: nn.Module, mode: str) -> tuple[str, ...]:
    """Contradictions between the buffers of the files and the mode that the adversary is granted."""
    import torch

    buffers = {name for name, _ in model.named_buffers()}
    changed = [
        name
        for name in frozen_tensors(model)
        if name in before and name in after and not torch.equal(before[name], after[name])
    ]
    if trained := [name for name in changed if name not in buffers]:
        return (
            f"the model freezes {trained[0]!r}, but the two files differ there: the client has trained it. Set "
            "requires_grad_(True) on it, so that its update is matched as well",
        )
    if mode == "train" or not changed:
        return ()
    return (
        f"mode eval is granted, but {len(changed)} buffers differ between the two files, for example {changed[0]!r}. "
        "The client seems to have trained in mode train, with the statistics of its batches. Its gradient then differs "
        "from the one that is matched. Train the client in mode eval, or with GroupNorm",
    )


def fewer_inputs(count: int, num_images: int) -> tuple[str, ...]:
    """The contradiction to the number of examples; nothing without true inputs, or with all of them."""
    if count in (0, num_images):
        return ()
    return (
        f"{num_images} images shape the update by what is known, and there are {count} true inputs. If these are "
        f"all inputs of the update, the number of images is wrong: give {count}. Otherwise, only these are scored",
    )
