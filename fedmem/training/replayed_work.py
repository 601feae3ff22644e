"""The work of clients with changes: other weights, rows left out or replaced, fewer steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.replay import Replay
from fedmem.errors import ComponentError
from fedmem.training.client_work import LEFT_OUT, Work

OTHER_DRAWS = 1 << 32
"""Added to the number of a run, this gives a run that does not exist, with draws of its own."""


def replayed_work(work: Work, places: Sequence[int], changes: Sequence[Replay], rows: int) -> Work:
    """The work of T clients of a round, each with a change; the same client may be there many times.

    Batches keep their shape, since the width of a batch is part of the bits of its sums. Without changes the work is
    that of these clients, bit for bit.

    Args:
        work: The work of a round.
        places: (T,) which client of it is trained.
        changes: (T,) the changes.
        rows: Rows of the store.

    Raises:
        ComponentError: if a change names a row that is not in the store, or one that is left out and replaced. Also
            if it asks for more steps than the client did, or for a model of another form.
    """
    chosen = work.take(list(places))
    starts: list[Params] = []
    model, run = chosen.model.copy(), chosen.run.copy()
    batches, steps = chosen.batches.copy(), chosen.steps.copy()
    client_rows = list(chosen.rows)
    number = len(next(iter(work.models.values())))
    for i, change in enumerate(changes):
        _check(change, chosen, i, rows)
        run[i] += change.draws * OTHER_DRAWS
        batches[i] = _with_change(batches[i], change, LEFT_OUT)
        client_rows[i] = _with_change(client_rows[i], change, LEFT_OUT)
        client_rows[i] = client_rows[i][client_rows[i] >= 0]
        if change.steps is not None:
            steps[i] = change.steps
        if change.start is not None:
            model[i] = number + len(starts)
            starts.append(change.start)
    models = {name: torch.cat([value, *(start[name][None] for start in starts)]) for name, value in work.models.items()}
    return Work(
        round=work.round,
        run=run,
        client=chosen.client,
        models=models if starts else work.models,
        model=model,
        rows=tuple(client_rows),
        batches=batches,
        steps=steps,
        payload=chosen.payload,
        memory=chosen.memory,
    )


def _with_change(rows: IntArray, change: Replay, left_out: int) -> IntArray:
    """Rows of the store with other rows in their places, and `left_out` in the places of those that are left out.

    >>> _with_change(np.array([[4, 7, -1]]), Replay(without=(7,), extra={4: 9}), LEFT_OUT).tolist()
    [[9, -2, -1]]
    """
    if change.is_unchanged:
        return rows
    changed = np.where(np.isin(rows, change.without), left_out, rows)
    for row, other in change.extra.items():
        changed = np.where(rows == row, other, changed)
    return changed


def _check(change: Replay, work: Work, i: int, rows: int) -> None:
    place = f"run {work.run[i]}, round {work.round}, client {work.client[i]}"
    both = sorted(set(change.without) & set(change.extra))
    if both:
        raise ComponentError("replay.extra", f"{place}: row {both[0]} is both left out and replaced; do one of the two")
    if change.draws < 0:
        raise ComponentError("replay.draws", f"{place}: {change.draws} should be 0 for the same draws, or above")
    for field, named in (("without", change.without), ("extra", (*change.extra, *change.extra.values()))):
        outside = [row for row in named if not 0 <= row < rows]
        if outside:
            raise ComponentError(
                f"replay.{field}",
                f"{place}: row {outside[0]} is not in the store; its rows are 0 to {rows - 1}. The row of audit "
                "example j at its first copy is federation.trained_rows[federation.audit.subject == j][0]",
            )
    done = int(work.steps[i])
    if change.steps is not None and not 0 <= change.steps <= done:
        raise ComponentError(
            "replay.steps",
            f"{place}: {change.steps} steps, but the client did {done}, and has no batches for more; ask for 0 to "
            f"{done}, or leave steps out",
        )
    if change.start is not None:
        _check_start(change.start, work.model_before(i), place)


def _check_start(start: Params, like: Params, place: str) -> None:
    """Errors: `ComponentError` for the first entry that is missing, unknown, or of another shape or type."""
    forms = [{name: (tuple(v.shape), v.dtype) for name, v in model.items()} for model in (start, like)]
    for name in dict.fromkeys([*like, *start]):
        given, expected = (form.get(name) for form in forms)
        if given != expected:
            given_text, expected_text = (
                "missing" if form is None else f"{form[1]} of shape {form[0]}" for form in (given, expected)
            )
            raise ComponentError(
                "replay.start", f"{place}: {name!r} is {given_text}, should be {expected_text}, as in transition.before"
            )
