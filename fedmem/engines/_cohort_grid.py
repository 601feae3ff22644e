"""The grid of a round: the nodes of its cohort alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from fedmem.errors import RunError

PATIENCE = 5
"""How often a strategy may ask for more nodes than its cohort has, before the run ends: none will come."""


class CohortGrid(Grid):
    """The grid, narrowed to the nodes of a cohort."""

    def __init__(self, grid: Grid, nodes: list[int], strategy: str) -> None:
        self._grid = grid
        self._nodes = nodes
        self._strategy = strategy
        self._num_polls = 0

    def set_run(self, run: Any) -> None:
        """Passed on."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """Passed on."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Passed on."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """The cohort. Flower waits for ever for nodes that will not come: say so instead."""
        self._num_polls += 1
        if self._num_polls > PATIENCE:
            raise RunError(
                f"strategy {self._strategy} waits for more nodes than the {len(self._nodes)} of this round's cohort. "
                "Lower its min_train_nodes and min_available_nodes, or raise the sampler's size."
            )
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Passed on."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Passed on."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Passed on."""
        return self._grid.send_and_receive(messages, timeout=timeout)
