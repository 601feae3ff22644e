"""Models as packages make them, read as plain logits: outputs with `logits`, and masks of padding."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedmem.contracts.data import Examples
from fedmem.errors import first_line
from fedmem.modalities.loss import UNASKED

if TYPE_CHECKING:
    from torch import Tensor, nn

NO_TOKEN = -1
"""A place of a row where there is no token, as in the texts of fedmem."""

TOKENS, MASK, SEGMENTS = "input_ids", "attention_mask", "token_type_ids"
"""The entries that a tokenizer of `transformers` returns."""


def logits_of(output: object) -> Tensor:
    """The logits of an output: the tensor itself, or what it has as attribute or entry `logits`.

    The outputs of `transformers` have this attribute. Errors: `TypeError` for any other output.

    >>> import torch
    >>> logits_of({"logits": torch.zeros(1, 3)}).shape
    torch.Size([1, 3])
    """
    import torch

    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(logits, torch.Tensor):
        raise TypeError(
            f"it returns {type(output).__name__}, expected a tensor of logits, or an output that has them as `logits`"
        )
    return logits


def add_plain_outputs(network: nn.Module) -> nn.Module:
    """The same network, which returns its logits alone; its names do not change."""
    network.register_forward_hook(lambda _module, _inputs, output: logits_of(output))
    return network


def use_plain_attention(network: nn.Module) -> None:
    """Lets a network of `transformers` compute attention in its plain form.

    Attacks differentiate gradients and stack networks, and the fused forms support neither.
    """
    for part in _own_and_base(network):
        choose = getattr(part, "set_attn_implementation", None)
        if callable(choose):
            choose("eager")


def evaluation_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode, that maps inputs to logits.

    Where its `forward` takes an `attention_mask`, whole numbers below 0 are places without a token. The copy hides
    them by the mask, and gives the token of padding in their place.

    >>> from torch import nn
    >>> evaluation_copy(nn.Linear(2, 3)).training
    False
    """
    import torch

    network = add_plain_outputs(deepcopy(model).cpu().eval())
    if not _takes_mask(network):
        return network
    padding = max(_padding(network), 0)

    def hide(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        tokens = inputs[0]
        if tokens.is_floating_point():
            return inputs, named
        return (torch.where(tokens < 0, padding, tokens), *inputs[1:]), {**named, MASK: (tokens >= 0).long()}

    network.register_forward_pre_hook(hide, with_kwargs=True)
    return network


def _own_and_base(network: nn.Module) -> list[nn.Module]:
    """The network, and the one in it to which a wrapper of `peft` gives its arguments."""
    base = getattr(network, "get_base_model", None)
    return [network, *([base()] if callable(base) else [])]


def _takes_mask(network: nn.Module) -> bool:
    return any(MASK in inspect.signature(part.forward).parameters for part in _own_and_base(network))


def _padding(network: nn.Module) -> int:
    """The token of padding of a network's config; -1 without one."""
    number = getattr(getattr(network, "config", None), "pad_token_id", None)
    return number if isinstance(number, int) else -1


def input_array(name: str, inputs: ArrayLike | Mapping[str, ArrayLike]) -> NDArray[Any]:
    """Inputs as a model reads them: whole numbers as int64, others as float32.

    What a tokenizer returns becomes its tokens, with -1 where the mask is 0. Errors: `ValueError`.

    >>> input_array("mine", {"input_ids": [[5, 6, 0]], "attention_mask": [[1, 1, 0]]}).tolist()
    [[5, 6, -1]]
    """
    if not isinstance(inputs, Mapping):
        values = np.asarray(inputs)
        return values.astype(np.int64 if np.issubdtype(values.dtype, np.integer) else np.float32)
    if TOKENS not in inputs:
        raise ValueError(f"{name}: has {', '.join(inputs)}; give {TOKENS}, as a tokenizer returns them")
    tokens = np.asarray(inputs[TOKENS], dtype=np.int64)
    mask = np.asarray(inputs.get(MASK, np.ones_like(tokens)))
    if mask.shape != tokens.shape or not np.isin(mask, (0, 1)).all():
        raise ValueError(f"{name}: {MASK} should have 0 or 1 for each of {TOKENS} {tokens.shape}, got {mask.shape}")
    unread = [key for key in inputs if key not in (TOKENS, MASK) and not (key == SEGMENTS and not np.any(inputs[key]))]
    if unread:
        raise ValueError(f"{name}: {unread[0]} is not read; give {TOKENS} and {MASK} alone")
    return np.where(mask == 0, NO_TOKEN, tokens)


def require_logits(network: nn.Module, name: str, examples: Examples, *, has_mask: bool) -> int:
    """The number of classes of a network that reads these examples; a forward pass of three rows is tried.

    `network` is an `evaluation_copy`. `has_mask` says whether the user gave a mask of padding. Errors: `ValueError`.
    """
    import torch

    _require_no_padding(network, name, examples, has_mask=has_mask)
    values, count = examples.inputs, len(examples)
    flat = values.reshape(count, -1)
    picked = np.unique([0, int(flat.max(axis=1).argmax()), int(flat.min(axis=1).argmin())]) if flat.size else [0]
    some = examples.take(np.asarray(picked))
    if values.dtype == np.int64:
        text = f"whole numbers from {flat.min()} to {flat.max()}" if flat.size else "whole numbers"
    else:
        text = "float32"
    given = f"inputs of shape {values.shape[1:]}, {text}"
    try:
        with torch.no_grad():
            shape = tuple(network(torch.from_numpy(some.inputs)).shape)
    except Exception as error:  # the user's own model can fail in any way
        reason = f"{first_line(error)} ({type(error).__name__})"
        raise ValueError(f"{name}: the model cannot read {given}: {reason}. {_remedy(network, values)}") from None
    wanted = some.targets.shape
    if shape[:-1] != wanted or len(shape) != len(wanted) + 1:
        raise ValueError(
            f"{name}: the model gives logits of shape {shape} for targets of shape {wanted}. Expected are logits "
            "(n, C) for targets (n,), or of next tokens (n, l, V) for targets (n, l)"
        )
    _require_targets(name, examples, shape[-1])
    return int(shape[-1])


def _remedy(network: nn.Module, values: NDArray[Any]) -> str:
    from torch import nn

    if values.dtype == np.int64 and _takes_mask(network):
        config = ". Where it needs a token of padding, set `config.pad_token_id`" if _padding(network) < 0 else ""
        return f"Give token numbers of its vocabulary, and no longer rows than it reads{config}"
    if values.dtype == np.int64:
        return "Give token numbers of its vocabulary or, for a model that reads no tokens, numbers as float32"
    if any(isinstance(part, nn.Embedding) for part in network.modules()):
        return "Give token numbers as whole numbers, such as int64"
    return "Give inputs as its forward takes them"


def _require_no_padding(network: nn.Module, name: str, examples: Examples, *, has_mask: bool) -> None:
    """Refuses rows that seem to be padded, but come without a mask; the model would read padding as text."""
    tokens, padding = examples.inputs, _padding(network)
    if has_mask or tokens.dtype != np.int64 or not tokens.size or (tokens < 0).any() or not _takes_mask(network):
        return
    # padding after the end changes no logit at an earlier place of a decoder
    ends = tokens[:, :1] if examples.several_targets else tokens[:, [0, -1]]
    if padding >= 0 and (ends == padding).any():
        raise ValueError(
            f"{name}: a row begins or ends with token {padding}, the model's padding, but has no mask. Give a mapping "
            f"of {TOKENS} and {MASK}, as the tokenizer returns it, or {NO_TOKEN} where there is no token"
        )


def _require_targets(name: str, examples: Examples, num_classes: int) -> None:
    """Refuses targets that are no classes, and labels of `transformers`, which its models shift themselves."""
    inputs, targets = examples.inputs, examples.targets
    is_asked = targets != UNASKED if examples.several_targets else np.ones(targets.shape, dtype=bool)
    odd = targets[is_asked & ((targets < 0) | (targets >= num_classes))]
    if odd.size:
        unasked = f", or {UNASKED} where nothing is asked" if examples.several_targets else ""
        raise ValueError(f"{name}: target {odd[0]} should be from 0 to {num_classes - 1}{unasked}")
    if not examples.several_targets or inputs.shape != targets.shape or inputs.dtype != np.int64:
        return
    if (is_asked & (inputs < 0)).any():
        raise ValueError(f"{name}: a target is asked where there is no token; write {UNASKED} as target there")
    both = is_asked[:, 1:] & is_asked[:, :-1] & (inputs[:, 1:] != inputs[:, :-1])
    if both.any() and (inputs == targets)[is_asked].all():
        raise ValueError(
            f"{name}: the targets are the tokens themselves. Give at each place the token that comes next: inputs "
            "tokens[:, :-1] and targets tokens[:, 1:]"
        )
