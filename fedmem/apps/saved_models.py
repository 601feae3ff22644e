"""Saved models from other sources, as the trained parameters and the frozen part of a network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fedmem.apps.array_names import names_in_model, rename_arrays
from fedmem.contracts.arrays import Params
from fedmem.contracts.model import frozen_tensors, trained_parameters
from fedmem.errors import FolderError

if TYPE_CHECKING:
    from torch import nn


def fit_to_model(params: Params, model: nn.Module, origin: str) -> Params:
    """The parameters of a file that the model trains, in its order, names and dtypes; frozen ones may be left out.

    Arrays that are called `arr_0`, `arr_1`, ... are taken in the order of the model's state.

    Errors: `FolderError` with the first parameter that is missing, unknown or of another shape.
    """
    state = model.state_dict()
    params = rename_arrays(params, names_in_model(model, params))
    numbered = [f"arr_{i}" for i in range(len(params))]
    if set(params) == set(numbered) and set(params) != set(state):
        orders = list(state), [name for name, _ in model.named_parameters()], list(trained_parameters(model))
        names = next((order for order in orders if len(order) == len(params)), orders[1])
        if len(names) != len(params):
            raise FolderError(f"{origin}: {len(params)} arrays for the {len(names)} parameters of the model")
        params = dict(zip(names, (params[name] for name in numbered), strict=True))
    parameters = trained_parameters(model)
    missing = [name for name in parameters if name not in params]
    if missing:
        raise FolderError(
            f"{origin}: the model's parameter {missing[0]!r} is missing; the file has {_first_few(params)}. "
            "Names must be the model's own: give the class that the file was saved from, as --model module:Class"
        )
    unknown = [name for name in params if name not in state]
    if unknown:
        raise FolderError(f"{origin}: {unknown[0]!r} is no parameter of the model, which has {_first_few(parameters)}")
    for name, value in (*parameters.items(), *frozen_tensors(model).items()):
        if name in params and params[name].shape != value.shape:
            raise FolderError(
                f"{origin}: {name!r} has shape {tuple(params[name].shape)}, in the model {tuple(value.shape)}; use the "
                "model with the fields that it was trained with, such as model.hidden=[64]"
            )
    return {name: params[name].to(value.dtype) for name, value in parameters.items()}


def read_frozen(params: Params, model: nn.Module) -> nn.Module:
    """A copy of the model with the frozen parameters and the buffers that were saved with what it trains."""
    import copy

    model_copy = copy.deepcopy(model)
    frozen = frozen_tensors(model_copy)
    model_copy.load_state_dict({name: value for name, value in params.items() if name in frozen}, strict=False)
    return model_copy


def _first_few(names: Iterable[str], limit: int = 6) -> str:
    """The first names, and that there are more."""
    every = list(names)
    return ", ".join(every[:limit]) + (f" and {len(every) - limit} more" if len(every) > limit else "")
