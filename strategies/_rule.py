"""From a rule on stacked arrays to a Flower strategy: one implementation, two paths.

A rule is written once, for R runs at a time: every array has a leading run axis. The engine may apply it to a whole
bank; `RuleStrategy` applies it to one run, as an ordinary Flower strategy with messages. A test holds both equal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any, Protocol, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

Arrays = dict[str, torch.Tensor]

CanaryUpdates = Callable[[Arrays], Iterable[tuple[Arrays, torch.Tensor]]]

SMALL = 1 << 18
"""Numbers in all models of a round that are summed side by side."""

PAYLOAD = "payload"
"""The `ArrayRecord` of a train message in which a strategy gives one client arrays beside the model."""

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""How the names of arrays end that torch's normalisation layers collect instead of learn."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """The input of a rule: R runs, K places in the cohort, N clients.

    Attributes:
        before: (R, ...) The model that was sent out.
        sent: (R, K, ...) The models that came back.
        weights: (R, K) float64. Numbers of examples.
        present: (R, K) bool. False for a place without a client.
        clients: (R, K) int64. The client at each place, from 0 to N - 1, or -1 where there is none.
        report: (R, K) float64 scalars by name, NaN where a client reports nothing. Where the probability with which
            the sampler picked each client is known, it is among them as `probability`.
        generators: Makes one generator per run, for rules that draw. In a scenario they are named streams. In an app
            of one's own there are none, since nobody should foresee the draws.
        canary_updates: Makes the directions of canary clients (R, C, ...) for arrays (R, ...), and (R, C) which of
            these clients participate in this round. Directions are in float64, have length one each, and are made
            one after another. None where there are no canary clients.
    """

    number: int
    before: Arrays
    sent: Arrays
    weights: torch.Tensor
    present: torch.Tensor
    clients: torch.Tensor
    report: dict[str, torch.Tensor] = field(default_factory=dict)
    generators: Callable[[], tuple[np.random.Generator, ...]] | None = None
    canary_updates: CanaryUpdates | None = None

    @property
    def drawing(self) -> tuple[np.random.Generator, ...]:
        """The generators to draw from, one per run: `generators`, or else generators seeded by the operating system."""
        if self.generators is not None:
            return self.generators()
        return tuple(np.random.default_rng() for _ in range(len(self.present)))


class Rule(Protocol):
    """The server step of a strategy.

    `state` starts it. `payload` (R, K, ...) is what it gives each client in addition to the model. The payload must not
    depend on the other clients of the cohort or on their order.
    """

    def state(self, before: Arrays, num_clients: int) -> Arrays: ...

    def payload(self, state: Arrays, clients: torch.Tensor) -> Arrays: ...

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]: ...


class ServerRule(ABC):
    """The common part of most strategies: a rule behind messages, without memory and without a payload."""

    def make(self, cohort_size: int) -> Strategy:
        """The rule as a Flower strategy."""
        return RuleStrategy(self)

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        """Nothing to remember."""
        return {}

    def payload(self, state: Arrays, clients: torch.Tensor) -> Arrays:
        """No payload."""
        return {}

    @abstractmethod
    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        """The next model and the next state."""


def weighted_mean(sent: Arrays, weights: torch.Tensor) -> Arrays:
    """Mean over the cohort (R, K, ...) -> (R, ...) with weights (R, K) that sum to one.

    Adds up in the order of the cohort, element by element. A run's result therefore does not depend on how many runs
    are stacked with it. It equals Flower's own FedAvg to the last bit.
    """
    first = next(iter(sent.values()))
    numbers = sum(values.numel() for values in sent.values())
    if numbers > SMALL or any(values.dtype != first.dtype for values in sent.values()):
        return {name: _ordered_sum(values, weights) for name, values in sent.items()}
    # element by element, so that laying small ones side by side changes no bit and saves most of the calls
    flat = [values.reshape(*weights.shape, -1) for values in sent.values()]
    means: Any = _ordered_sum(torch.cat(flat, dim=2), weights)
    parts = means.split([part.shape[2] for part in flat], dim=1)
    return {name: part.reshape(len(part), *sent[name].shape[2:]) for name, part in zip(sent, parts, strict=True)}


def _ordered_sum(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    factors = weights.to(values.dtype).reshape(*weights.shape, *(1,) * (values.ndim - 2))
    total = torch.zeros(())
    for k, (value, factor) in enumerate(zip(values.unbind(1), factors.unbind(1), strict=True)):
        total = total.add_(value * factor) if k else value * factor
    return total


def share(weights: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Weights (R, K) of those present, divided by their sum; all zero without a present client.

    Where all present clients weigh nothing, as clients without rows do, they weigh the same.
    """
    active_weights = torch.where(present, weights, torch.zeros_like(weights))
    active_weights = torch.where(
        (active_weights > 0).any(dim=1, keepdim=True), active_weights, present.to(active_weights.dtype)
    )
    # summed in order, as Flower does, not by a tree
    total = active_weights.cumsum(dim=1)[:, -1:]
    return torch.where(
        total > 0,
        active_weights / torch.where(total > 0, total, torch.ones_like(total)),
        torch.zeros_like(active_weights),
    )


@dataclass(kw_only=True)
class Services:
    """The services of a bank of runs to the Flower strategy of one run. In an app of one's own it stays empty.

    Attributes:
        nodes: Node ids of all N clients, client 0 first. If empty, clients are numbered in the order in which their
            nodes are met.
        reports: Scalars of the clients of this round, by node. They are not in the replies, since Flower aggregates
            every number that a reply contains.
        generators: Makes the generators of the rule for this round; None if nobody should foresee the draws.
        canary_updates: Makes the updates of canary clients of this round, see `Round.canary_updates`; None if there are
            none.
    """

    nodes: Sequence[int] = ()
    reports: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    generators: Callable[[], tuple[np.random.Generator, ...]] | None = None
    canary_updates: CanaryUpdates | None = None


class RuleStrategy(FedAvg):
    """A Flower strategy that applies a rule to the replies of one run.

    Attributes:
        rule: The rule.
        services: The services of the bank; the engine writes it before each round.
    """

    def __init__(self, rule: Rule, num_clients: int = 0, **fedavg: Any) -> None:
        super().__init__(**{**ALONE, **fedavg})
        self.rule = rule
        self.services = Services()
        self._num_clients = num_clients
        self._clients: dict[int, int] = {}
        self._state: Arrays | None = None
        self._before: Arrays = {}
        self._received: Arrays = {}

    def _client(self, node: int) -> int:
        """The number of the client behind a node, given to a node that is met for the first time."""
        nodes = self.services.nodes
        # in a range a client is found without a table of all of them
        node_range = nodes if isinstance(nodes, range) else range(0)
        if node in node_range:
            return node_range.index(node)
        if not self._clients and not node_range:
            self._clients = {node_id: client for client, node_id in enumerate(nodes)}
        return self._clients.setdefault(node, len(node_range) + len(self._clients))

    @property
    def message_name(self) -> Rule:
        """The rule, which messages name."""
        return self.rule

    @property
    def _noisy(self) -> bool:
        """Whether the rule is applied to rounds without clients: its declaration, or False where it has none."""
        return bool(getattr(self.rule, "noisy", False))

    def step_without_clients(self, server_round: int, arrays: ArrayRecord) -> ArrayRecord | None:
        """The model after a round without clients; None if the rule is not applied to such rounds."""
        if not self._noisy:
            return None
        self._begin(arrays)
        assert self._state is not None
        before, no_clients = self._before, torch.full((1, 1), -1)
        rnd = Round(
            number=server_round,
            before=before,
            sent={name: value[:, None] for name, value in before.items()},
            weights=torch.zeros((1, 1), dtype=torch.float64),
            present=no_clients >= 0,
            clients=no_clients,
            generators=self.services.generators,
            canary_updates=self.services.canary_updates,
        )
        after = self._apply(rnd)
        return ArrayRecord(
            {name: Array(after[name][0].numpy()) if name in after else array for name, array in arrays.items()}
        )

    def _apply(self, rnd: Round) -> Arrays:
        """The next model. Errors: `ValueError` where the rule gives it other names, shapes or types."""
        assert self._state is not None
        after, self._state = self.rule.rule(self._state, rnd)
        for text in wrong_models(after, self._before):
            raise ValueError(text)
        return after

    def _begin(self, arrays: ArrayRecord) -> None:
        """Remember the model that the replies will be compared with."""
        self._received = {name: torch.from_numpy(array.numpy())[None] for name, array in arrays.items()}
        self._before = {name: value for name, value in self._received.items() if is_weight(name, value)}
        if self._state is None:
            clients = len(self.services.nodes) or self._num_clients
            self._state = self.rule.state(self._before, clients)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the model that the replies will be compared with; add the payload of each client."""
        self._begin(arrays)
        assert self._state is not None
        messages = list(super().configure_train(server_round, arrays, config, grid))
        # new nodes in the order of their ids, since Flower lists a cohort in random order
        for node in sorted(message.metadata.dst_node_id for message in messages):
            self._client(node)
        clients = torch.tensor([[self._client(message.metadata.dst_node_id) for message in messages]])
        payload = self.rule.payload(self._state, clients)
        for k, message in enumerate(messages if payload else ()):
            record = ArrayRecord({name: Array(value[0, k].numpy()) for name, value in payload.items()})
            message.content = RecordDict({**message.content, PAYLOAD: record})
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Stack the replies along a cohort axis, apply the rule with R = 1."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        records = [next(iter(reply.content.array_records.values())) for reply in valid]
        metrics = [next(iter(reply.content.metric_records.values())) for reply in valid]
        nodes = [int(reply.metadata.src_node_id) for reply in valid]
        sent = {
            name: torch.stack([torch.from_numpy(record[name].numpy()) for record in records])[None]
            for name in records[0]
        }
        rnd = Round(
            number=server_round,
            before=self._before,
            sent={name: sent[name] for name in self._before},
            weights=torch.tensor([[cast(float, m[self.weighted_by_key]) for m in metrics]], dtype=torch.float64),
            present=torch.ones((1, len(valid)), dtype=torch.bool),
            clients=torch.tensor([[self._client(node) for node in nodes]]),
            report=reports(
                [
                    [
                        {**_loss_report(metric_record), **self.services.reports.get(n, {})}
                        for metric_record, n in zip(metrics, nodes, strict=True)
                    ]
                ]
            ),
            generators=self.services.generators,
            canary_updates=self.services.canary_updates,
        )
        after = self._apply(rnd)
        others = [name for name in sent if name not in self._before]
        after = after | {name: self._received[name] if self._noisy else lower_median(sent[name]) for name in others}
        arrays = ArrayRecord({name: Array(after[name][0].to(value.dtype).numpy()) for name, value in sent.items()})
        return arrays, self.train_metrics_aggr_fn([reply.content for reply in valid], self.weighted_by_key)


def wrong_models(after: Any, before: Arrays) -> Iterable[str]:
    """Mistakes in the models (R, ...) that a rule returned, compared with those that were sent out.

    >>> list(wrong_models({"w": torch.zeros(1, 3)}, {"w": torch.zeros(1, 2)}))
    ["the model's 'w' has shape (1, 3), should be (1, 2)"]
    """
    if not isinstance(after, Mapping):
        yield f"the model is {type(after).__name__}, should be tensors by name"
        return
    for name, value in before.items():
        value_after = after.get(name)
        if not isinstance(value_after, torch.Tensor):
            kind = "missing" if value_after is None else type(value_after).__name__
            yield f"the model's {name!r} is {kind}, should be a tensor"
        elif value_after.shape != value.shape:
            yield f"the model's {name!r} has shape {tuple(value_after.shape)}, should be {tuple(value.shape)}"
        elif not value_after.is_floating_point():
            yield f"the model's {name!r} is {value_after.dtype}, should be {value.dtype}"


def is_weight(name: str, values: torch.Tensor) -> bool:
    """Whether an entry of a model is given to rules: neither a whole number nor a statistic of a layer."""
    return values.dtype.is_floating_point and not name.endswith(STATISTICS)


def lower_median(values: torch.Tensor) -> torch.Tensor:
    """(1, K, ...) -> (1, ...); a sort leaves every type as it is and puts what is not a number last."""
    return values.sort(dim=1).values[:, (values.shape[1] - 1) // 2]


def _loss_report(metrics: MetricRecord) -> dict[str, float]:
    """The loss among the metrics of a reply."""
    loss = metrics.get("train_loss")
    return {"loss": float(loss)} if isinstance(loss, (int, float)) else {}


def reports(runs: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, torch.Tensor]:
    """Scalars that clients of R runs report, by name (R, K) float64; NaN for silence and for missing clients."""
    places = max(len(run) for run in runs)
    names = sorted({name for run in runs for client_report in run for name in client_report})
    return {
        name: torch.tensor(
            [[client_report.get(name, nan) for client_report in run] + [nan] * (places - len(run)) for run in runs],
            dtype=torch.float64,
        )
        for name in names
    }


ALONE: dict[str, Any] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 0.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 0,
    "min_available_nodes": 1,
}
"""Train every client that the grid lists, evaluate none: the sampler decides which clients take part."""
