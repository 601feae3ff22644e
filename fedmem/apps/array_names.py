"""The names of an app's arrays in the model: whole states, lists without names, and adapters of peft."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fedmem.contracts.arrays import Params
from fedmem.contracts.model import trained_parameters
from fedmem.training.model_checks import mismatch

if TYPE_CHECKING:
    from torch import Tensor, nn


def rename_arrays(params: Params, names: Mapping[str, str]) -> Params:
    """The arrays of an app under the model's names; those that the model has under another name are left out."""
    return {names[name]: value for name, value in params.items() if name in names}


def names_in_model(module: nn.Module, arrays: Mapping[str, Tensor]) -> dict[str, str]:
    """The name of each array of an app -> its name in the model.

    - Arrays `0`, `1`, ... and `arr_0`, `arr_1`, ... are a list in the model's order. It is the model's state, all of
      its parameters, or those that require gradients. The first of these that has these shapes counts.
    - A parameter that stands under two names in the state is one parameter of the model.
    - `peft.get_peft_model_state_dict` leaves out the name of the adapter, such as `default`.

    Names that the model does not have stay as they are.

    >>> from torch import nn
    >>> layer = nn.Linear(4, 3)
    >>> names_in_model(layer, {"0": layer.weight, "1": layer.bias})
    {'0': 'weight', '1': 'bias'}
    """
    order = _list_order(module, arrays)
    if order is not None:
        return order
    aliases = {**dict(_adapter_names(module)), **dict(_tied_names(module))}
    own = {*trained_parameters(module), *(name for name, _ in module.named_parameters())}
    names = {name: name if name in own else aliases.get(name, name) for name in arrays}
    # of a tied pair the model's own name counts
    twice = {target for name, target in names.items() if target != name and target in arrays}
    return {name: target for name, target in names.items() if name == target or target not in twice}


def app_mismatch(module: nn.Module, arrays: Params) -> str | None:
    """Why these arrays of an app are not a model of the module, under any of its names; None where they are.

    Arrays of a part of the module show a wrapper around the model of the app.

    >>> from torch import nn
    >>> layer = nn.Linear(4, 3)
    >>> app_mismatch(nn.Sequential(layer), layer.state_dict()).partition(". ")[0]
    "the app's arrays are those of a part of the model, '0'"
    """
    reason = mismatch(module, rename_arrays(arrays, names_in_model(module, arrays)))
    if reason is None:
        return None
    for name, part in module.named_children():
        if trained_parameters(part) and mismatch(part, rename_arrays(arrays, names_in_model(part, arrays))) is None:
            return (
                f"the app's arrays are those of a part of the model, {name!r}. Give this part alone, as the app has "
                "it. It needs no wrapper that picks the logits, since an output with `logits` is read"
            )
    return reason


def _list_order(module: nn.Module, arrays: Mapping[str, Tensor]) -> dict[str, str] | None:
    """The names of a list of arrays; None where the arrays have names, or no order fits."""
    keys = list(arrays)
    if not keys or keys not in ([str(i) for i in range(len(keys))], [f"arr_{i}" for i in range(len(keys))]):
        return None
    shapes = [tuple(value.shape) for value in arrays.values()]
    state = module.state_dict()
    for values in (state, dict(module.named_parameters()), trained_parameters(module)):
        if [tuple(value.shape) for value in values.values()] == shapes:
            tied = dict(_tied_names(module))
            return {key: name for key, name in zip(keys, values, strict=True) if name not in tied}
    return None


def _tied_names(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Further names of parameters and buffers that stand under several, each with the first one."""
    first: dict[int, str] = {}
    tensors: list[tuple[str, Any]] = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, value in tensors:
        if first.setdefault(id(value), name) != name:
            yield name, first[id(value)]


def _adapter_names(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names without the name of an adapter, each with that of the parameter; of modules that peft has made."""
    adapters = getattr(module, "peft_config", None)
    if not isinstance(adapters, Mapping):
        return
    for name, _ in module.named_parameters():
        parts = name.split(".")
        for adapter in adapters:
            # a layer may have the name of an adapter: peft puts its own behind the copy that it trains, or last
            copies = [place + 1 for place, part in enumerate(parts) if part == "modules_to_save"]
            places = [place for place, part in enumerate(parts) if part == adapter and place in (copies or [place])]
            if not places:
                continue
            place = places[-1]
            yield ".".join((*parts[:place], *parts[place + 1 :])), name
            if copies:
                yield ".".join((*parts[: place - 1], *parts[place + 1 :])), name
