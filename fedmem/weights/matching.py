"""Weights by name into a network: all of them, or a message that lists what does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from fedmem.contracts.arrays import Params
from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import Tensor, nn

_SHOWN = 6
"""The most names that a message lists."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The outcome of `load_weights`.

    Attributes:
        tensors: How many tensors of the network got their values from the weights.
        numbers: How many numbers these have.
        fresh: The names of the network's tensors that stay as they were.
        fresh_numbers: How many numbers these have.
        unused: The names of weights that the network did not take.
    """

    tensors: int
    numbers: int
    fresh: tuple[str, ...] = ()
    fresh_numbers: int = 0
    unused: tuple[str, ...] = ()

    def text(self, origin: str) -> str:
        """One sentence about it.

        >>> Loaded(tensors=2, numbers=99, fresh=("head.bias",), fresh_numbers=5).text("a.pt")
        '2 tensors (99 numbers) are from a.pt; 1 is fresh (5 numbers): head.bias'
        """
        verb = "is" if self.tensors == 1 else "are"
        text = f"{self.tensors} tensor{'s' * (self.tensors != 1)} ({self.numbers:,} numbers) {verb} from {origin}"
        if self.fresh:
            verb = "is" if len(self.fresh) == 1 else "are"
            text += f"; {len(self.fresh)} {verb} fresh ({self.fresh_numbers:,} numbers): {_list_names(self.fresh)}"
        return text + (f"; not used: {_list_names(self.unused)}" if self.unused else "")


@dataclass(kw_only=True)
class _Misfits:
    """Names by what is wrong with them."""

    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)

    def text(self) -> str:
        parts = [
            f"it lacks {_list_names(self.missing)}" if self.missing else "",
            f"the network has no {_list_names(self.unknown)}" if self.unknown else "",
            f"shapes differ: {_list_names(self.shapes)}" if self.shapes else "",
        ]
        return "; ".join(filter(None, parts))


def load_weights(
    network: nn.Module, weights: Params, origin: str, *, leave: Sequence[str] = (), place: str = "model.weights"
) -> Loaded:
    """Copies weights into the parameters and buffers of a network that have the same names.

    Every tensor of the network's state needs a weight of its name and shape, and every weight a tensor. Names that
    match a pattern of `leave` are exempt: tensors of these names stay fresh, and weights of these names are not used.
    A tensor that stands under several names needs one of them.

    Args:
        network: The network, which is changed.
        weights: Tensors by name.
        origin: What they are, for messages.
        leave: Patterns of names, with `*` for any characters.
        place: The field that an error names.

    Errors: `ComponentError` with all names that do not fit, values that are not finite, and patterns without a name.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        >>> weights = {"0.weight": torch.zeros(3, 4), "0.bias": torch.ones(3)}
        >>> load_weights(network, weights, "a file", leave=["1.*"]).text("a file")
        '2 tensors (15 numbers) are from a file; 2 are fresh (8 numbers): 1.weight, 1.bias'
    """
    import torch

    groups = _groups(network)
    known = {name for names in groups.values() for name in names}
    _check_patterns(leave, known | weights.keys(), origin)
    misfits = _Misfits()
    chosen: dict[str, tuple[Tensor, Tensor]] = {}
    fresh: dict[str, Tensor] = {}
    for tensor, names in zip(_tensors(network), groups.values(), strict=True):
        given = [name for name in names if name in weights and not _matches(name, leave)]
        if given and tuple(weights[given[0]].shape) == tuple(tensor.shape):
            chosen[given[0]] = tensor, weights[given[0]]
            if any(not torch.equal(weights[name], weights[given[0]]) for name in given[1:]):
                misfits.shapes.append(f"{' and '.join(given)} are one tensor in the network")
        elif given:
            misfits.shapes.append(
                f"{given[0]} is {_shape_text(weights[given[0]])} there, {_shape_text(tensor)} in the network"
            )
        elif any(_matches(name, leave) for name in names):
            fresh[names[0]] = tensor
        else:
            misfits.missing.append(names[0])
    unused = [name for name in weights if name not in known or _matches(name, leave)]
    misfits.unknown += [name for name in unused if not _matches(name, leave)]
    if problem := misfits.text():
        raise ComponentError(place, f"{origin} does not fit the network: {problem}. {_remedy(place, misfits)}")
    if not chosen:
        raise ComponentError(place, f"nothing of {origin} would be used; leave some names out of `except`")
    for name, (tensor, value) in chosen.items():
        _check_values(name, value, tensor, origin, place)
    with torch.no_grad():
        for tensor, value in chosen.values():
            tensor.copy_(value)
    return Loaded(
        tensors=len(chosen),
        numbers=sum(tensor.numel() for tensor, _ in chosen.values()),
        fresh=tuple(fresh),
        fresh_numbers=sum(tensor.numel() for tensor in fresh.values()),
        unused=tuple(unused),
    )


def _groups(network: nn.Module) -> dict[int, list[str]]:
    """The names of each tensor of a network's state, by its identity, in order."""
    groups: dict[int, list[str]] = {}
    for name, value in network.state_dict(keep_vars=True).items():
        groups.setdefault(id(value), []).append(name)
    return groups


def _tensors(network: nn.Module) -> list[Tensor]:
    """The tensors in the order of `_groups`."""
    return list({id(value): value for value in network.state_dict(keep_vars=True).values()}.values())


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_patterns(patterns: Sequence[str], names: set[str], origin: str) -> None:
    """Errors: `ComponentError` where a pattern matches no name."""
    for position, pattern in enumerate(patterns):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ComponentError(
                f"initial_weights.except[{position}]",
                f"{pattern!r} matches no name in the network or in {origin}; names are {_list_names(sorted(names))}",
            )


def _check_values(name: str, value: Tensor, tensor: Tensor, origin: str, place: str) -> None:
    """Errors: `ComponentError` for numbers of another kind, and for those that are not finite."""
    if value.is_floating_point() != tensor.is_floating_point():
        kinds = [str(each.dtype).removeprefix("torch.") for each in (value, tensor)]
        raise ComponentError(
            place, f"{name!r} of {origin} is {kinds[0]}, in the network {kinds[1]}; save it as {kinds[1]}"
        )
    if not bool(value.isfinite().all()):
        raise ComponentError(
            place, f"{name!r} of {origin} has values that are not finite; use weights of another round"
        )


def _remedy(place: str, misfits: _Misfits) -> str:
    names = [*misfits.missing, *misfits.unknown, *(shape.split(" ")[0] for shape in misfits.shapes)]
    head = names[0].rpartition(".")[0] or names[0]
    pattern = f"{head}.*" if "." in names[0] else head
    declare = f" Or declare what shall start fresh: except: [{pattern!r}]" if place.startswith("initial") else ""
    return f"Choose the model and fields that it was saved from.{declare}"


def _shape_text(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "one number"


def _list_names(names: Sequence[str] | Mapping[str, object]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
