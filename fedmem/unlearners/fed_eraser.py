"""Stored updates are replayed with new directions: the remaining clients train again, shortly and in some rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt, Le

from fedmem.contracts.arrays import Params
from fedmem.contracts.unlearner import LocalTraining, RunToForget, StoredRound, UnlearningContext
from fedmem.unlearners._layers import add, difference, norm, weighted_sum


@dataclass(frozen=True, kw_only=True)
class FedEraser:
    """FedEraser: the aggregate is built again from initial weights, out of stored lengths and new directions.

    For the rounds t = 1, 1 + Δ, 1 + 2Δ, … of the phase before, the clients of that round train from the new model θ'.
    Those that were forgotten do not, and the others do the first share r of their steps. In each layer,

        θ' ← θ' + ‖ū_old‖ · ū_new / ‖ū_new‖,

    where ū_old is the weighted mean of the *stored* updates of these clients in round t, and ū_new that of the new
    ones. Forgotten clients have no part in either. A client that forgets some examples trains on replacement rows in
    their places.

    - Without anything to forget, and with Δ = 1 and r = 1, θ' is the aggregate of the run but for rounding. With
      Δ > 1, θ' has the updates of the replayed rounds alone. All runs go through the same procedure.
    - A new update of norm 0 has no direction, and the layer stays. A round without a remaining client is passed over.
    - Batches are those of the round in the phase before. The client algorithm is that of the phase.
    - The stored update of round t ends at the model after local training, and begins at the aggregate of round t − 1.
      State of a server, such as momentum, is not replayed.

    The first training must store its models, with `rounds` the replayed t for `local` and t − 1 for `global`:

        observe: {every: 1}
        save: {models: {rounds: [0, 1, …, T], levels: [local, global]}}

    Fields:
        every: Δ; every Δ-th round is replayed.
        share: r, the share of local steps.

    >>> FedEraser(every=2).trained_rounds(6)
    (1, 3, 5)

    Reference: Liu et al. (2021), FedEraser: Enabling Efficient Client-Level Data Removal.
    """

    without_windows: ClassVar[bool] = True

    every: Annotated[int, Gt(0)] = 2
    share: Annotated[float, Gt(0), Le(1)] = 0.5

    def trained_rounds(self, rounds: int) -> tuple[int, ...]:
        """The rounds that are replayed."""
        return tuple(range(1, rounds + 1, self.every))

    def stored_models(self, rounds: int) -> Mapping[str, tuple[int, ...]]:
        """The models of clients in these rounds, and the aggregates that they started from.

        Round 0 is the initial model, which need not be stored.

        >>> FedEraser(every=3).stored_models(6)
        {'local': (1, 4), 'global': (3,)}
        """
        replayed = self.trained_rounds(rounds)
        return {"local": replayed, "global": tuple(number - 1 for number in replayed if number > 1)}

    def unlearn(self, context: UnlearningContext) -> Sequence[Params]:
        """The models that are built again."""
        models = [run.initial for run in context.runs]
        for number in self.trained_rounds(context.rounds_before):
            stored = [_remaining(run, context.stored_round(run.run, number)) for run in context.runs]
            trainings = [
                LocalTraining(run=run.run, client=client, start=model)
                for run, model, of_run in zip(context.runs, models, stored, strict=True)
                for client in of_run.clients
            ]
            sent = iter(context.train(number, trainings, self.share))
            for position, (run, of_run) in enumerate(zip(context.runs, stored, strict=True)):
                if of_run.clients:
                    weights = context.weights(run.run, of_run.sizes)
                    start = models[position]
                    new = {client: difference(next(sent), start) for client in of_run.clients}
                    old = {client: difference(model, of_run.aggregate) for client, model in of_run.clients.items()}
                    step = _calibrate(weighted_sum(old, weights), weighted_sum(new, weights))
                    models[position] = add(start, step)
        return models


def _remaining(run: RunToForget, stored: StoredRound) -> StoredRound:
    """A stored round without the clients that take no part any more, in ascending order."""
    clients = sorted(stored.clients.keys() & set(run.clients))
    return StoredRound(
        aggregate=stored.aggregate,
        clients={client: stored.clients[client] for client in clients},
        sizes={client: stored.sizes[client] for client in clients},
    )


def _calibrate(old: Params, new: Params) -> Params:
    """The directions of `new` with the lengths of `old`, layer by layer; 0 where `new` is.

    >>> import torch
    >>> _calibrate({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([0.0, 2.0])})["w"].tolist()
    [0.0, 5.0]
    """
    step: Params = {}
    for name, direction in new.items():
        length, size = norm({name: old[name]}), norm({name: direction})
        step[name] = direction * (length / size if size > 0 and math.isfinite(size) else 0.0)
    return step
