"""Shards of clients with something to forget are trained again; all other constituents of the model stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fedmem.contracts.arrays import Params
from fedmem.contracts.unlearner import RunToForget, UnlearningContext


@dataclass(frozen=True, kw_only=True)
class Sisa:
    """Sharded training (SISA) for federations: exact unlearning that trains single shards again.

    With `client_shards: S` of the scenario, client c trains constituent c mod S of the model alone, and the mean of
    their probabilities is evaluated. So what a client knows is in one constituent. The constituents whose clients have
    something to forget go back to their initial weights. The remaining clients of these shards then repeat all rounds
    of the first training, with its cohorts and batches. A client that forgets some examples trains on replacement rows
    in their places. All other constituents stay as they are, to the last bit.

    - It is complete before round 1 of the phase: read round 0. The further rounds train all shards.
    - Nothing but the initial weights is stored. There are no slices, so that a shard begins at its first round.
    - In a run in which nobody has anything to forget, the model stays as it is, to the last bit.
    - With a single shard the whole model is trained again, as by `retrain`. `retrain` does so in the rounds of the
      phase, with cohorts and batches of its own, and in all runs.

    Fields: none.

    >>> Sisa().trains_shards
    True

    Reference: Bourtoule et al. (2021), Machine Unlearning.
    """

    trains_shards: ClassVar[bool] = True
    without_windows: ClassVar[bool] = True

    def unlearn(self, context: UnlearningContext) -> Sequence[Params]:
        """The models with the constituents of these shards trained again."""
        shards = context.client_shards
        affected = {run.run: {shards.of(client) for client in run.forgotten} for run in context.runs if run.forgotten}
        trained = context.train_again(
            {
                run.run: [client for client in run.clients if shards.of(client) in affected[run.run]]
                for run in context.runs
                if run.run in affected
            }
        )
        return [
            _replace(context, run, affected[run.run], trained[run.run]) if run.run in affected else run.before
            for run in context.runs
        ]


def _replace(context: UnlearningContext, run: RunToForget, affected: set[int], trained: Params) -> Params:
    """The model of a run with these constituents of another."""
    shards = context.client_shards
    names = {shards.entry(shard, name) for shard in affected for name in shards.constituent(shard, run.before)}
    return {name: trained[name] if name in names else value for name, value in run.before.items()}
