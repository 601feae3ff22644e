"""Parameters that a scenario freezes: they keep their initial values, and no message contains them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from fedmem.contracts.model import trained_parameters
from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import nn


def freeze(module: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the parameters of a network whose names match one of these patterns, such as `features.*`.

    A pattern must match the whole name; `*` stands for any characters, dots included. A parameter with several names is
    frozen under all of them.

    Errors: `ComponentError` at `freeze` if a pattern matches no parameter, or if nothing is left to train.

    >>> from torch import nn
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    >>> freeze(network, ["0.*"])
    >>> list(trained_parameters(network))
    ['1.weight', '1.bias']
    """
    names = dict(module.named_parameters(remove_duplicate=False))
    for i, pattern in enumerate(patterns):
        matched = [value for name, value in names.items() if fnmatchcase(name, pattern)]
        if not matched:
            raise ComponentError(
                f"freeze[{i}]",
                f"{pattern!r} matches no parameter of the network, which has {', '.join(list(names)[:8])}"
                f"{' and others' if len(names) > 8 else ''}. Write the name of a parameter, or a pattern such as "
                f"{next(iter(names), 'layer').split('.')[0] + '.*'!r}",
            )
        for value in matched:
            value.requires_grad_(False)
    if patterns and not trained_parameters(module):
        raise ComponentError(
            "freeze", "matches all parameters of the network, so that nothing could be trained; leave some of them out"
        )
