"""Unlearning at clients: those with something to forget change the model, and the server averages what they send."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.unlearner import RunToForget, UnlearningContext

ChangeAtClient = Callable[[UnlearningContext, RunToForget, int, IntArray], Params]
"""Context, run, client and its forgotten rows -> the model that the client sends."""


def unlearn_at_clients(context: UnlearningContext, change: ChangeAtClient) -> Sequence[Params]:
    """The average of what the clients with something to forget send, for each run.

    Where nobody has anything to forget, the model of the run stays as it is, to the last bit.
    """
    return [
        context.average(run.run, {client: change(context, run, client, rows) for client, rows in run.forgotten.items()})
        if run.forgotten
        else run.before
        for run in context.runs
    ]
