"""Memory beside models: gradients of single examples, client state, and the server's state for clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmem.contracts.client import PrivateAlgorithm
from fedmem.contracts.model import trained_parameters
from fedmem.contracts.strategy import strategy_declaration
from fedmem.contracts.validation_of_measures import by_run
from fedmem.guards.guarding import NOT_OURS, Guard

if TYPE_CHECKING:
    from fedmem.contracts.arrays import Params
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario

MARGIN = 4
"""Standard deviations by which a Poisson batch is taken to exceed its mean at most."""


def largest_batch(batch_size: int) -> int:
    """Rows of a Poisson batch that hardly any exceeds.

    >>> largest_batch(25)
    45
    """
    return int(batch_size + MARGIN * batch_size**0.5)


def of_examples(scenario: Scenario, federation: Federation, stacked: bool) -> int:
    """Bytes of the gradients of single examples that one client holds at once; 0 where there are none.

    A stack holds none if all layers are linear, else all. For clients one by one, hooks hold all, and ghost clipping
    those of layers that are not linear. Recurrent layers need those of a single example.
    """
    if not isinstance(scenario.client, PrivateAlgorithm):
        return 0
    import torch
    from torch import nn

    from fedmem.training.ghost_clipping import Layers
    from fedmem.training.per_example import by_ghost, one_by_one

    model = federation.model
    num_values = sum(value.numel() for value in federation.initial.values())
    if stacked:
        num_values *= Layers.of(model, torch.from_numpy(federation.store.inputs[:1].copy())) is None
    elif one_by_one(model):
        return 4 * num_values
    elif by_ghost(model):
        linear = (part for part in model.modules() if isinstance(part, nn.Linear))
        num_values -= sum(value.numel() for part in linear for value in trained_parameters(part).values())
    return 4 * num_values * largest_batch(scenario.client.batch_size)


def by_server(scenario: Scenario, federation: Federation) -> int:
    """Bytes that the rule of a strategy keeps of one run.

    Counted for one client and for two, since tables grow by a row for each. The nodes of a tree are one for each level,
    of which there is a single one at the beginning.
    """
    declared = strategy_declaration(scenario.strategy)
    state = declared.state
    if state is None:
        return 0
    before = {name: value[None] for name, value in federation.initial.items()}
    with Guard("strategy", scenario.strategy, "state") as guard:
        bytes_of_one, bytes_of_two = (_bytes(by_run(guard, "it", state(before, count), (1,))) for count in (1, 2))
    levels = scenario.rounds.bit_length() if declared.counts_participations else 1
    return levels * (bytes_of_one + (federation.num_clients - 1) * (bytes_of_two - bytes_of_one))


def by_client(scenario: Scenario, federation: Federation) -> int:
    """Bytes that a client remembers after its participation, with the own layers that the observer remembers."""
    import torch

    client, statistics = scenario.client, federation.mode.statistics
    before = {name: value for name, value in federation.initial.items() if name not in statistics}
    try:
        state = client.init(before, {"round": torch.tensor(1.0)}, {})
        remembered = _bytes(client.final(state, before).memory)
    except NOT_OURS:
        raise
    except BaseException:
        # It cannot begin without the payload of its strategy; or it fails, which training reports by place.
        return 0
    with Guard("client", client, "personal_parameters"):
        personal_names = federation.personal_names(client)
    # what stays because of `norm` is in the client state, and in the observer's like all that stays
    by_norm = {name: federation.initial[name] for name in federation.mode.personal}
    return remembered + _bytes(by_norm) + _bytes({name: federation.initial[name] for name in personal_names})


def _bytes(values: Params) -> int:
    return sum(value.numel() * value.element_size() for value in values.values())
