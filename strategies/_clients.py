"""Tables with one row for each client, (R, N, ...), of which a round needs those of its cohort."""

from __future__ import annotations

import torch

from strategies._rule import Round


def rows(table: torch.Tensor, round: Round, fill: float) -> torch.Tensor:
    """(R, K, ...) the rows of the cohort; `fill` where nobody is, or for clients that the table has no row for yet."""
    table = _grown(table, round, fill)
    taken = table[torch.arange(len(table))[:, None], round.clients.clamp(min=0)]
    there = round.present.reshape(round.present.shape + (1,) * (taken.ndim - 2))
    return torch.where(there, taken, torch.full_like(taken, fill))


def with_rows(table: torch.Tensor, round: Round, new: torch.Tensor, fill: float) -> torch.Tensor:
    """The table with new rows (R, K, ...) for those who are present, longer where it must be."""
    changed = _grown(table, round, fill).clone()
    run, place = round.present.nonzero(as_tuple=True)
    changed[run, round.clients[run, place]] = new[run, place]
    return changed


def _grown(table: torch.Tensor, round: Round, fill: float) -> torch.Tensor:
    """Nodes that nobody introduced are numbered when they are met, so that N is not known beforehand."""
    missing = int(round.clients.max()) + 1 - table.shape[1]
    if missing <= 0:
        return table
    return torch.cat([table, table.new_full((len(table), missing, *table.shape[2:]), fill)], dim=1)
