"""The contract of sharded training (SISA): each client trains one of several networks, evaluated together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")

CONSTITUENTS = "constituents"
"""The module of a sharded network that holds its constituents."""


@dataclass(frozen=True, kw_only=True)
class ClientShards:
    """Clients in shards, each with a constituent network of its own.

    The constituents are part of one model, whose entries are named `constituents.<shard>.<entry>`. With a single shard
    the model is the network itself.

    Attributes:
        count: The number of shards.
    """

    count: int = 1

    def of(self, client: int) -> int:
        """The shard of a client: the remainder of its number.

        >>> [ClientShards(count=3).of(client) for client in range(5)]
        [0, 1, 2, 0, 1]
        """
        return client % self.count

    def entry(self, shard: int, name: str) -> str:
        """The name in the model of an entry of a constituent.

        >>> ClientShards(count=3).entry(2, "output.bias"), ClientShards().entry(0, "output.bias")
        ('constituents.2.output.bias', 'output.bias')
        """
        return name if self.count == 1 else f"{CONSTITUENTS}.{shard}.{name}"

    def constituent(self, shard: int, model: Mapping[str, Value]) -> dict[str, Value]:
        """The entries of a constituent by the names that they have in its network, in the order of the model.

        >>> ClientShards(count=2).constituent(1, {"constituents.0.w": 3, "constituents.1.w": 4})
        {'w': 4}
        """
        prefix = self.entry(shard, "")
        return {name.removeprefix(prefix): value for name, value in model.items() if name.startswith(prefix)}
