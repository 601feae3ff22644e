"""What a defence must do to an update before it is sent."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from fedmem.contracts.types import Params

Draws = Literal["none", "normal", "uniform"]
"""What a defence wants drawn for each value of an update: nothing, standard normal, or uniform in [0, 1)."""


@runtime_checkable
class Defence(Protocol):
    """Changes an update, `sent - before`, before it leaves its client; what the client keeps stays as it is.

    `apply` is a pure function of tensors, written for one client and run one by one or under `vmap`. `update` holds the
    floating parameters; `drawn` has for each value one number of the law `draws`, in the same shapes, and is empty for
    `none`.
    """

    @property
    def draws(self) -> Draws: ...

    def apply(self, update: Params, drawn: Params) -> Params: ...
