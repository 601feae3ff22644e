"""A network of the user's own: a plain `nn.Module` class, or a function that returns a module."""

from __future__ import annotations

from typing import Any, ClassVar

from fedmem.contracts.own_part import OwnPart

FROM_DATA = ("input_shape", "num_classes")
"""Arguments that are filled from the data unless the scenario gives them."""


class OwnModel(OwnPart):
    """The base of components that are made from such a class or function; its arguments are their fields.

    `stackable` and `texts` are those that the class declares: `stackable = True` in its body lets clients be trained as
    one stack, which `torch.vmap` must be able to do.
    """

    stackable: ClassVar[bool] = False

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> Any:
        """Call the class or function, with `input_shape` and `num_classes` if it has such arguments."""
        arguments = self._arguments()
        for name, value in zip(FROM_DATA, (tuple(input_shape), num_classes), strict=True):
            if name in arguments:
                given = arguments[name]
                arguments[name] = value if given is None else tuple(given) if isinstance(given, list) else given
        return type(self)._target(**arguments)
