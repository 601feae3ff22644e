"""Weights of a finished run or a file, which a federation starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedmem.contracts.client import PrivateAlgorithm
from fedmem.contracts.model import add_network_note
from fedmem.contracts.strategy import strategy_declaration
from fedmem.errors import FedmemError
from fedmem.scenario.initial import InitialWeights
from fedmem.scenario.yaml_source import read_file
from fedmem.weights.matching import load_weights

if TYPE_CHECKING:
    from torch import nn

    from fedmem.scenario.scenario import Scenario


def load_initial(scenario: Scenario, module: nn.Module) -> None:
    """Copies the weights that a scenario starts from into its network, frozen parameters and buffers included.

    Does nothing where all weights are drawn.

    Errors: `ComponentError` at `initial_weights` where there are no such weights, or they do not fit.
    """
    section = scenario.initial_weights
    if not isinstance(section, InitialWeights):
        return
    origin = section.origin()
    weights = {section.prefix + name: value for name, value in origin.read().items()}
    loaded = load_weights(module, weights, origin.title, leave=section.fresh, place="initial_weights")
    add_network_note(module, loaded.text(origin.title))


def same_data_warnings(scenario: Scenario) -> tuple[str, ...]:
    """Warns that a run from which weights come was trained on the data set of this scenario.

    What that training shows of a record is in the initial model, which no guarantee of this scenario covers.
    """
    section = scenario.initial_weights
    run = section.origin().run if isinstance(section, InitialWeights) else None
    if run is None:
        return ()
    try:
        former = read_file(run / "scenario.yaml").value
    except FedmemError:
        return ()
    data = former.get("dataset") if isinstance(former, dict) else None
    if not isinstance(data, dict) or not _is_same_data(data, scenario.dump()["dataset"]):
        return ()
    is_private = isinstance(scenario.client, PrivateAlgorithm) or strategy_declaration(scenario.strategy).noisy
    uncovered = " The guarantee of privacy covers this scenario's training, and not what the run shows of a record."
    return (
        f"initial_weights come from {run}, which was trained on the data set {data.get('kind')} as well. Audit "
        "examples and reference data of this scenario may have been in its training, so that no model is without "
        f"them.{uncovered if is_private else ''} Pretrain on other data",
    )


def _is_same_data(former: dict[str, Any], data: dict[str, Any]) -> bool:
    """Whether two data sets are of one kind and agree on every text, such as a path or a name.

    How many rows each of them draws does not matter, since the rows may overlap.

    >>> _is_same_data({"kind": "npz", "path": "a", "rows": 9}, {"kind": "npz", "path": "b", "rows": 9})
    False
    """
    texts = {name for name, value in (former | data).items() if isinstance(value, str)}
    return all(former.get(name) == data.get(name) for name in texts)
