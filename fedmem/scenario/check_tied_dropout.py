"""Checks of example-tied dropout: parts that cannot train or read such a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.client import ClientAlgorithm, PrivateAlgorithm
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.needs import needs_of
from fedmem.contracts.probe import Probe
from fedmem.contracts.unlearner import Unlearner, unlearner_declaration
from fedmem.errors import Problem

if TYPE_CHECKING:
    from fedmem.scenario.tied_dropout import TiedDropout


def _tied_layers(tied_dropout: TiedDropout | None) -> Iterator[Problem]:
    if tied_dropout is None:
        return
    for position, name in enumerate(tied_dropout.layers):
        if name in tied_dropout.layers[:position]:
            yield Problem(
                path=f"tied_dropout.layers[{position}]", message=f"{name!r} is named twice; name each module once"
            )


def _tied_privately(tied_dropout: TiedDropout | None, client: ClientAlgorithm) -> Iterator[Problem]:
    """Gradients of single examples are computed by other code, which is not given the units of a row."""
    if tied_dropout is not None and isinstance(client, PrivateAlgorithm):
        yield Problem(
            path="tied_dropout",
            message=f"client {kind_of(client)} clips the gradients of single examples, which are computed with the "
            "fixed units alone; use client: {kind: sgd}, or leave tied_dropout out",
        )


def _tied_gradients(tied_dropout: TiedDropout | None, probes: Sequence[Probe]) -> Iterator[Problem]:
    """An attacker who reads an update as a gradient of the watched network would read another one."""
    if tied_dropout is None:
        return
    for position, probe in enumerate(probes):
        if any(needs_of(part).reads_gradients for _, part in nested_components(probe, "")):
            yield Problem(
                path=f"probes[{position}]",
                message=f"{kind_of(probe)} reads an update as the gradient of its examples in the network that is "
                "watched. With tied_dropout, each example was trained on with units of its own; leave the probe or "
                "tied_dropout out",
            )


def _tied_centrally(tied_dropout: TiedDropout | None, central: str | None) -> Iterator[Problem]:
    if tied_dropout is not None and central is not None and tied_dropout.unit == "client":
        yield Problem(
            path="tied_dropout.unit",
            message="central training has one client, which all units would be tied to; write unit: example",
        )


def _tied_units_read(tied_dropout: TiedDropout | None, unlearner: Unlearner | None) -> Iterator[Problem]:
    if tied_dropout is None and unlearner is not None and unlearner_declaration(unlearner).reads_tied_units:
        yield Problem(
            path="unlearner",
            message=f"{kind_of(unlearner)} resets the units that are tied to what is forgotten, but the network has "
            "none; write tied_dropout: {layers: [activation1]} in the scenario, or blocks: [1] in the unlearner",
        )
