"""What tests of flower share."""

from __future__ import annotations

from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedmem.engines import _transport
from fedmem.engines._messages import WORK, Assignment
from fedmem.federation.build import build
from fedmem.observation.flower_round import TRACE
from tests.tiny import tiny

NODES = 5


class Loopback(Grid):
    """A grid in this process. `partitions` maps node to partition; a node answers `delay` pulls after it was asked."""

    def __init__(self, partitions: dict[int, int | None], answer: bool = True, delay: int = 0) -> None:
        self.partitions = partitions
        self.answer = answer
        self.delay = delay
        self.asked: list[Message] = []
        self.open: dict[str, tuple[int, Message]] = {}

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return list(self.partitions)

    def push_messages(self, messages: Any) -> list[str]:
        numbers = []
        for message in messages:
            busy = {waiting.metadata.dst_node_id for _, waiting in self.open.values()}
            assert message.metadata.dst_node_id not in busy, "the node has not answered its last letter"
            number = f"letter-{len(self.asked)}"
            message.metadata.__dict__["_message_id"] = number
            self.asked.append(message)
            self.open[number] = (self.delay, message)
            numbers.append(number)
        return numbers

    def pull_messages(self, message_ids: Any) -> list[Message]:
        replies = []
        for number in message_ids if self.answer else ():
            left, message = self.open[number]
            self.open[number] = (left - 1, message)
            if left <= 0:
                del self.open[number]
                replies.append(self.reply(message))
        return replies

    def reply(self, message: Message) -> Message:
        partition = self.partitions[message.metadata.dst_node_id]
        trace: dict[str, Any] = {"digest": "own", "number": message.content[WORK]["round"]}
        trace |= {} if partition is None else {"client": partition}
        return Message(RecordDict({TRACE: ConfigRecord(trace)}), reply_to=message)

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        raise NotImplementedError


def met(grid: Loopback) -> _transport.Transport:
    post = _transport.Transport(grid, lambda: None)
    post.handshake(build(tiny(clients=3)), Assignment(scenario="", seconds=1.0))
    return post
