"""Contracts of defences, which change an update before it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from fedmem.contracts.arrays import Params
from fedmem.contracts.declarations import Declaration, declare, read_declaration

Draws = Literal["none", "normal", "uniform"]
"""The draws of a defence for each value of an update: none, standard normal, or uniform in [0, 1)."""


@runtime_checkable
class Defence(Protocol):
    """Changes an update, `sent - before`, before it leaves its client; what the client keeps stays as it is.

    `apply` is a pure function of tensors, written for one client and run one by one or under `vmap`. `update` holds the
    floating parameters; `drawn` has for each value one number of the law `draws`, in the same shapes, and is empty for
    `none`. It may declare what `DefenceDeclaration` lists.
    """

    @property
    def draws(self) -> Draws: ...

    def apply(self, update: Params, drawn: Params) -> Params: ...


@dataclass(frozen=True, kw_only=True)
class DefenceDeclaration(Declaration):
    """The declarations of a defence for the privacy accountant. A subclass with methods of its own declares it again.

    Attributes:
        norm_bound: Largest L2 norm of an update after this defence, whatever came before; None if there is no bound.
        gaussian_deviation: Standard deviation of the independent Gaussian noise on each value; None if it adds none.
        noise_norm: Norm that this noise is meant for; None for any.
    """

    norm_bound: float | None = declare(None, "a norm, or None", renewed=True)
    gaussian_deviation: float | None = declare(None, "a number, or None", renewed=True)
    noise_norm: float | None = declare(None, "a norm, or None", renewed=True)


def defence_declaration(defence: object) -> DefenceDeclaration:
    """The declarations of a defence.

    >>> from fedmem.defences.clip import Clip
    >>> defence_declaration(Clip(norm=2.0)).norm_bound
    2.0
    """
    return read_declaration(DefenceDeclaration, defence)
