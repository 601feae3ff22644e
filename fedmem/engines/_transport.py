"""Carrying letters to clients over a grid of Flower's, and waiting for the answers, but not for ever."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from flwr.app import Error, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedmem.contracts.federation import Federation, digest
from fedmem.engines._messages import FAILED, WORK, Assignment
from fedmem.errors import RunError
from fedmem.observation.flower_round import TRACE

STUCK_SECONDS = 60.0
"""How long the runtime may take beyond the time of its clients, to start its workers for instance."""

PULL_SECONDS = 0.02
"""How often replies are asked for."""

Request = tuple[int, RecordDict, str]
"""A letter as it travels: to which client, with what content, of which type of message."""


class Transport:
    """Carries letters to clients over Flower's grid and waits for the answers; no node has two letters at once."""

    def __init__(self, grid: Grid, check: Callable[[], None]) -> None:
        self._grid = grid
        self._check = check
        self._nodes: dict[int, int] = {}

    def handshake(self, federation: Federation, work: Assignment) -> None:
        """Ask every node which client it is, and whether its process has built the same federation."""
        expected, local_digest = federation.num_clients, digest(federation)
        nodes = sorted(self._grid.get_node_ids())
        if len(nodes) < expected:
            raise RunError(
                f"Flower's runtime has {len(nodes)} nodes for {expected} clients; start it with at least {expected}, "
                f'as by flwr run . --federation-config "num-supernodes={expected}".'
            )
        self._nodes = dict(enumerate(nodes))
        answers = self.exchange(
            [(place, RecordDict({WORK: work.record()}), MessageType.QUERY) for place in self._nodes]
        )
        node_by_client: dict[int, int] = {}
        for node, answer in zip(nodes, answers, strict=True):
            node_by_client.setdefault(_client_of(answer, local_digest), node)
        missing = sorted(set(range(expected)) - set(node_by_client))
        if missing:
            raise RunError(f"no node has partition-id {missing[0]}; clients are the partitions 0 to {expected - 1}.")
        self._nodes = node_by_client

    def exchange(self, requests: Sequence[Request]) -> list[Message]:
        """The answers, in the order of the letters (client, content, type of message)."""
        queues: dict[int, deque[int]] = {}
        for i, (client, _, _) in enumerate(requests):
            queues.setdefault(client, deque()).append(i)
        underway: dict[str, int] = {}
        answers: dict[int, Message] = {}
        free = list(queues)
        while len(answers) < len(requests):
            underway |= self._push([queues[client].popleft() for client in free if queues[client]], requests)
            arrived = {underway.pop(m.metadata.reply_to_message_id): m for m in self._pull(underway, requests)}
            answers |= arrived
            free = [requests[i][0] for i in arrived]
        return [answers[i] for i in range(len(requests))]

    def _pull(self, underway: Mapping[str, int], requests: Sequence[Request]) -> list[Message]:
        """The next answers, at least one. A client may take too long twice; beyond that the runtime itself hangs."""
        patience = STUCK_SECONDS + 2 * max(_seconds(requests[i]) for i in underway.values())
        started = time.monotonic()
        while True:
            arrived = list(self._grid.pull_messages(list(underway)))
            if arrived:
                return arrived
            self._check()
            if time.monotonic() - started > patience:
                waiting = sorted(requests[i][0] for i in underway.values())
                raise RunError(f"no client answered for {patience:.0f} seconds; still waiting for clients {waiting}.")
            time.sleep(PULL_SECONDS)

    def _push(self, positions: Sequence[int], requests: Sequence[Request]) -> dict[str, int]:
        messages = [Message(requests[i][1], self._nodes[requests[i][0]], requests[i][2]) for i in positions]
        numbers = list(self._grid.push_messages(messages))
        if len(numbers) != len(messages):
            raise RunError("Flower's runtime took only part of the messages; the node of a client is gone.")
        return dict(zip(numbers, positions, strict=True))


def _client_of(answer: Message, expected: str) -> int:
    """Which client has answered a query, if it works on the same federation."""
    if answer.has_error():
        raise RunError(f"a client's process could not build the federation: {cause_of(answer.error)}")
    record = answer.content.config_records[TRACE]
    if record["digest"] != expected:
        raise RunError(
            "a client's process built another federation than the server from the same scenario; data and versions of "
            "packages must be the same wherever clients run."
        )
    if "client" not in record:
        raise RunError(
            "a node has no partition-id, so that nobody knows which client it is; start it with "
            "--node-config 'partition-id=0' and so on."
        )
    return int(record["client"])  # type: ignore[arg-type]


def _seconds(request: Request) -> float:
    """How long the work of a letter may take."""
    return Assignment.of(request[1]).seconds


def cause_of(error: Error) -> str:
    """Why a client failed, in one line; what Flower writes where the process is gone is long."""
    reason = error.reason or f"error {error.code}"
    if error.code != FAILED and ("Actor" in reason or "WorkerCrashed" in reason):
        return (
            "its worker process died, and so did the one that tried again. They crashed, were killed (for want of "
            "memory?), or took longer than a client may"
        )
    return reason
