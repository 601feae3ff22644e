"""Arrays that a server keeps for each client: tables (R, N, ...) from which cohorts take, and into which they put."""

from __future__ import annotations

import torch

from ._rule import Arrays, Round


def table(before: Arrays, num_clients: int) -> Arrays:
    """A row of zeros for each client, in the shapes of the model."""
    return {name: value[:, None].expand(-1, num_clients, *value.shape[1:]) * 0 for name, value in before.items()}


def rows_of(values: torch.Tensor, clients: torch.Tensor) -> torch.Tensor:
    """(R, N, ...), (R, K) -> (R, K, ...): the rows of these clients; zeros for -1 and for clients without a row yet."""
    has_row = (clients >= 0) & (clients < values.shape[1])
    if not has_row.any():
        return values.new_zeros((*clients.shape, *values.shape[2:]))
    rows = values[torch.arange(len(values))[:, None], torch.where(has_row, clients, 0)]
    return torch.where(_widen(has_row, rows), rows, torch.zeros_like(rows))


def with_rows(values: torch.Tensor, clients: torch.Tensor, present: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The table with the rows of those present replaced; it grows where one of them is not in it yet."""
    size = max(values.shape[1], int(torch.where(present, clients, -1).max()) + 1)
    after = values.new_zeros((values.shape[0], size, *values.shape[2:]))
    after[:, : values.shape[1]] = values
    run, place = present.nonzero(as_tuple=True)
    after[run, clients[run, place]] = rows[run, place]
    return after


def known_share(before: torch.Tensor, after: torch.Tensor) -> float:
    """The share of a table's clients that it had before it grew: what an old mean is worth, the new ones being zero."""
    return before.shape[1] / after.shape[1]


def part(state: Arrays, prefix: str) -> Arrays:
    """The arrays of a state whose names begin like this, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def updates_of(rnd: Round) -> Arrays:
    """`sent - before`, (R, K, ...); zero for absent clients."""
    differences = {name: value - rnd.before[name][:, None] for name, value in rnd.sent.items()}
    return {name: torch.where(_widen(rnd.present, u), u, torch.zeros_like(u)) for name, u in differences.items()}


def require_reports(rnd: Round, name: str, strategy: str) -> torch.Tensor:
    """(R, K) what every client present has to say of its work, 1 for the absent.

    Errors: `ValueError` if one says nothing: without it the strategy would be another one.
    """
    values = rnd.report.get(name)
    if values is None or bool((values.isnan() & rnd.present).any()):
        raise ValueError(
            f"{strategy} needs the {name} of every client, but one does not report it. In a Flower app of your own, "
            f"let clients report scalars in a ConfigRecord named 'trace', and watch the strategy by Observed"
        )
    return torch.where(rnd.present, values.to(torch.float64), 1.0)


def _widen(flags: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return flags.reshape(*flags.shape, *(1,) * (like.ndim - flags.ndim))
