"""Entries of a model that no client algorithm steps on: running statistics, and entries that stay with a client."""

from __future__ import annotations

from dataclasses import dataclass

from fedmem.contracts.arrays import Params
from fedmem.contracts.client import Outcome
from fedmem.contracts.training_mode import TrainingMode

STATE = "norm:"
"""The beginning of the names of such entries in the client state."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """The entries of a model, and the client state, that a client begins a round with.

    Attributes:
        params: The parameters that its algorithm steps on.
        statistics: Running statistics, which its forward passes write to.
        memory: The client state that its algorithm left.
    """

    params: Params
    statistics: Params
    memory: Params


def start_of(mode: TrainingMode, before: Params, memory: Params) -> Start:
    """Split the model that a client is sent, with its own entries in the place of those that came.

    A client that has not trained yet begins with the entries that came. Statistics are copies.

    >>> import torch
    >>> mode = TrainingMode(statistics=("mean",), personal=("mean",))
    >>> sent = {"w": torch.zeros(1), "mean": torch.zeros(1)}
    >>> start = start_of(mode, sent, {"norm:mean": torch.ones(1)})
    >>> list(start.params), float(start.statistics["mean"])
    (['w'], 1.0)
    """
    if not mode.statistics:
        return Start(params=before, statistics={}, memory=memory)
    own = {name: memory.get(f"{STATE}{name}", before[name]) for name in mode.personal}
    model = {**before, **own}
    return Start(
        params={name: value for name, value in model.items() if name not in mode.statistics},
        statistics={name: model[name].clone() for name in mode.statistics},
        memory={name: value for name, value in memory.items() if not name.startswith(STATE)},
    )


def join_outcome(mode: TrainingMode, before: Params, outcome: Outcome, statistics: Params) -> Outcome:
    """The outcome with whole models: what stays with the client is sent as it came, and remembered."""
    if not mode.statistics:
        return outcome

    def join(params: Params) -> Params:
        return {name: statistics[name] if name in statistics else params[name] for name in before}

    kept = join(outcome.kept)
    if not mode.personal:
        sent = kept if outcome.kept is outcome.sent else join(outcome.sent)
        return Outcome(sent=sent, kept=kept, memory=outcome.memory, report=outcome.report)
    sent = {name: before[name] if name in mode.personal else value for name, value in join(outcome.sent).items()}
    memory = {**outcome.memory, **{f"{STATE}{name}": kept[name] for name in mode.personal}}
    return Outcome(sent=sent, kept=kept, memory=memory, report=outcome.report)
