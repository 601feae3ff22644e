"""Example-tied dropout of a scenario: the layers that it acts on, and the shares of their units."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from fedmem.scenario.section import Section


class TiedDropout(Section):
    """Hidden units that only a few examples, or clients, train, and that evaluation drops.

    >>> TiedDropout(layers=("activation1",))
    TiedDropout(layers=('activation1',), fixed=0.2, tied=0.1, unit='example')
    """

    layers: Annotated[tuple[Annotated[str, Strict()], ...], Field(min_length=1)] = Field(
        description="names of modules of the network whose outputs are the units, such as activation1"
    )
    fixed: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.2, description="share of the units that all examples train, and that evaluation keeps"
    )
    tied: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="share of the other units that each example or client trains"
    )
    unit: Literal["example", "client"] = Field(
        default="example", description="whether units are tied to single examples or to whole clients"
    )
