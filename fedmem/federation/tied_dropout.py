"""Example-tied dropout in the network of a scenario: which units it has, found by a trial pass."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from fedmem.contracts.model import add_network_note
from fedmem.contracts.tied_units import TiedLayer, TiedUnits
from fedmem.errors import ComponentError
from fedmem.training.tied_units import drop_units
from fedmem.wording import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedmem.scenario.scenario import Scenario
    from fedmem.scenario.tied_dropout import TiedDropout


def apply_tied_dropout(scenario: Scenario, network: nn.Module, rows: Tensor) -> None:
    """Make the network of a scenario drop the units that are not fixed, in every forward pass; in place.

    Errors: see `tied_units_of`.
    """
    tied = tied_units_of(scenario, network, rows)
    if tied is None:
        return
    drop_units(network, tied)
    for layer in tied.layers:
        add_network_note(
            network,
            f"{layer.fixed} of {layer.units} units of {layer.name} are evaluated; each {tied.unit} trains these and "
            f"{layer.tied} of the others",
        )


def tied_units_of(scenario: Scenario, network: nn.Module, rows: Tensor) -> TiedUnits | None:
    """The units of the named layers; None without `tied_dropout`, or where all units are fixed.

    Numbers of units are rounded shares. Units are the second axis of an output: columns, or channels of maps.

    Args:
        scenario: The scenario.
        network: Its network.
        rows: Some rows (n, ...) of the data, with which a copy is called once.

    Raises:
        ComponentError: If a name is not that of a hidden layer, or a share leaves no unit.
    """
    settings = scenario.tied_dropout
    if settings is None:
        return None
    if not rows.is_floating_point():
        raise ComponentError(
            "tied_dropout",
            "the rows of texts have units at every place, which cannot be tied; leave tied_dropout out, or use data of "
            "images, tables or series",
        )
    counts = _units_by_layer(settings, network, rows)
    layers = tuple(_layer(settings, name, units) for name, units in counts.items())
    layers = tuple(layer for layer in layers if layer.others)
    return TiedUnits(layers=layers, unit=settings.unit, seed=scenario.seed) if layers else None


def _units_by_layer(settings: TiedDropout, network: nn.Module, rows: Tensor) -> dict[str, int]:
    """The number of units at the output of each named module."""
    import torch
    from torch import Tensor

    trial = deepcopy(network).eval()
    outputs: dict[str, object] = {}
    for position, name in enumerate(settings.layers):
        if name not in dict(trial.named_modules()) or not name:
            raise ComponentError(f"tied_dropout.layers[{position}]", _unknown(trial, rows, name))
        trial.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
    with torch.no_grad():
        logits = trial(rows)
    counts: dict[str, int] = {}
    for position, name in enumerate(settings.layers):
        output = outputs.get(name)
        if not isinstance(output, Tensor) or output.dim() < 2 or len(output) != len(rows) or output is logits:
            why = (
                "is not called in a forward pass"
                if name not in outputs
                else "gives the logits, and a class must not be dropped"
                if output is logits
                else "gives no output with one row for each example"
            )
            raise ComponentError(f"tied_dropout.layers[{position}]", f"{name!r} {why}; {_suitable(trial, rows)}")
        counts[name] = output.shape[1]
    return counts


def _unknown(trial: nn.Module, rows: Tensor, name: str) -> str:
    names = [known for known in dict(trial.named_modules()) if known]
    return f"the network has no module {name!r}{did_you_mean(name, names)}; {_suitable(trial, rows)}"


def _suitable(trial: nn.Module, rows: Tensor) -> str:
    """The modules without parameters and parts, such as activations, with their units."""
    import torch
    from torch import Tensor, nn

    found: dict[str, int] = {}

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() > 1 and len(output) == len(rows):
            found[name] = output.shape[1]

    for name, part in trial.named_modules():
        if name and not list(part.parameters()) and not list(part.children()) and not isinstance(part, nn.Flatten):
            part.register_forward_hook(lambda _, __, output, name=name: note(name, output))
    with torch.no_grad():
        trial(rows)
    if not found:
        return "name modules of hidden units, such as activations; this network has none"
    some = ", ".join(f"{name} ({units} units)" for name, units in list(found.items())[:8])
    return f"name modules of hidden units, such as activations, among {some}"


def _layer(settings: TiedDropout, name: str, units: int) -> TiedLayer:
    """The rounded numbers of units of a layer.

    Errors: `ComponentError` where no unit would be fixed, or none tied although a share is.
    """
    fixed = round(settings.fixed * units)
    tied = round(settings.tied * (units - fixed))
    if not fixed:
        raise ComponentError(
            "tied_dropout.fixed",
            f"{settings.fixed:g} of the {units} units of {name} is none, so that evaluation would drop all; raise "
            f"fixed to {1 / units:.2g} or more, or widen the layer",
        )
    if settings.tied and units > fixed and not tied:
        raise ComponentError(
            "tied_dropout.tied",
            f"{settings.tied:g} of the {units - fixed} units of {name} that are not fixed is none; raise tied to "
            f"{1 / (units - fixed):.2g} or more, or widen the layer",
        )
    return TiedLayer(name=name, units=units, fixed=fixed, tied=tied)
