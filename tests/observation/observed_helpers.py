"""What tests of observed share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from torch import nn

from fedmem.engines._flower import FIRST_NODE, LocalGrid
from tests.narrowing import instance

CLIENTS = 4


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 16)
        self.fc2 = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc2(torch.relu(self.fc1(x)))
        return out


def data_of(client: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(client)
    return torch.from_numpy(rng.random((20, 6), dtype=np.float32)), torch.from_numpy(rng.integers(0, 3, 20))


client_app = ClientApp()


@client_app.train()
def train(msg: Message, context: Context) -> Message:
    model = Net()
    model.load_state_dict(instance(msg.content["arrays"], ArrayRecord).to_torch_state_dict())
    inputs, targets = data_of(int(context.node_config["partition-id"]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]  # PyTorch does not say its types
        optimizer.step()
    content = RecordDict(
        {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": len(targets)})}
    )
    return Message(content, reply_to=msg)


def initial() -> ArrayRecord:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return ArrayRecord(Net().state_dict())


def app_grid(
    order: Callable[[list[Message]], list[Message]] = list,
    kind: type[LocalGrid] = LocalGrid,
    client_of: Callable[[int], int] = lambda node: node - FIRST_NODE,
) -> Grid:
    """A grid that calls the ClientApp for every message, as a simulation does."""

    def exchange(messages: list[Message]) -> list[Message]:
        replies = []
        for message in messages:
            client = client_of(message.metadata.dst_node_id)
            context = Context(
                run_id=1,
                node_id=message.metadata.dst_node_id,
                node_config={"partition-id": client, "num-partitions": CLIENTS},
                state=RecordDict(),
                run_config={},
            )
            replies.append(client_app(message, context))
        return order(replies)

    return kind(CLIENTS, exchange)
