"""A small federation for probes: real digits, a real network, real local steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn
from torch.func import functional_call

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.attack import GradientTarget
from fedmem.contracts.audit_set import AuditSet, References
from fedmem.contracts.client import Outcome
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import NO_CLIENT, Measurement, Reading
from fedmem.contracts.replay import Replay
from fedmem.modalities.images import Images
from fedmem.modalities.loss import mean_loss
from fedmem.modalities.undescribed import modality_of_shape
from fedmem.privacy.canary_directions import CanaryDirections
from fedmem.seeding import stream
from fedmem.strategies.dp_fedavg import DpFedAvg

CLIENTS, BASE, RUNS = 3, 12, 4


def digits() -> Examples:
    images, labels = load_digits(return_X_y=True)
    inputs = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return Examples(inputs=inputs, targets=labels.astype(np.int64), ids=np.arange(len(labels)))


def network(activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), activation(), nn.Linear(64, 10))


def parameters(model: nn.Module) -> Params:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def gradient_of(model: nn.Module, params: Params, inputs: NDArray[np.float32] | IntArray, targets: IntArray) -> Params:
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    loss = mean_loss(functional_call(model, leaves, (torch.from_numpy(inputs),)), torch.from_numpy(targets))
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def target_of(model: nn.Module, params: Params, rows: Examples) -> GradientTarget:
    return GradientTarget(
        model=model,
        params=params,
        gradient=gradient_of(model, params, rows.inputs, rows.targets),
        num_images=len(rows),
        input_shape=rows.inputs.shape[1:],
        target_shape=rows.targets.shape[1:],
        num_classes=10,
        modality=modality_of_shape(rows.inputs.shape[1:]),
        knows="gradient",
    )


def federation(population: int = 40, copies: int = 1) -> Federation:
    """Three clients of 12 base rows; each holds 2 `typical` and 1 `noise` canary."""
    data, rng = digits(), np.random.default_rng(1)
    noise = rng.integers(2, size=(CLIENTS + 50, 1, 8, 8)).astype(np.float32)
    typical = data.take(np.arange(100, 100 + 2 * CLIENTS))
    canaries = Examples(inputs=noise[:CLIENTS], targets=np.arange(CLIENTS), ids=-1 - np.arange(CLIENTS))
    size = 3 * CLIENTS
    audit = AuditSet(
        examples=Examples.concatenate([typical, canaries]),
        kind=np.array(["typical"] * 2 * CLIENTS + ["noise"] * CLIENTS),
        role=np.array(["typical"] * 2 * CLIENTS + ["canary"] * CLIENTS),
        owner=np.concatenate([np.repeat(np.arange(CLIENTS), 2), np.arange(CLIENTS)]).astype(np.int32),
        copies=np.full(size, copies, dtype=np.int32),
        is_in=(np.arange(RUNS)[:, None] + np.arange(size)[None]) % 2 == 0,
    )
    start = CLIENTS * BASE
    spare = data.take(np.arange(200, 200 + copies * size))
    fill = np.where(np.repeat(audit.is_in, copies, axis=1), -1, start + size + np.arange(copies * size)[None])
    model = network()
    return Federation(
        store=Examples.concatenate([data.take(np.arange(start)), audit.examples, spare]),
        base=tuple(np.arange(BASE * k, BASE * (k + 1)) for k in range(CLIENTS)),
        audit=audit,
        audit_start=start,
        trained_rows=start + np.repeat(np.arange(size), copies),
        replacement=fill,
        test=data.take(np.arange(300, 360)),
        population=data.take(np.arange(400, 400 + population)),
        references=(References(family="noise", inputs=noise[CLIENTS:]),),
        model=model,
        initial=parameters(model),
        num_classes=10,
        modality=Images(),
        counts={},
    )


@dataclass
class Lab:
    """A context with a real network and real local training, small enough for a unit test."""

    federation: Federation = field(default_factory=federation)
    client: Any = field(default_factory=lambda: Sgd(lr=0.1, epochs=1, batch_size=5))
    strategy: Any = field(default_factory=lambda: DpFedAvg(clip=0.1, expected_cohort_size=3))
    seed: int = 0
    observed_rounds: tuple[int, ...] = (0, 2, 4)
    canaries: CanaryDirections | None = field(default_factory=lambda: CanaryDirections(seed=0, count=6, rate=0.5))
    weighting: str = "size"
    kept: dict[str, NDArray[Any]] = field(default_factory=dict)

    def stream(
        self, purpose: str, *, run: int | None = None, round_number: int | None = None, client: int | None = None
    ) -> np.random.Generator:
        return stream(self.seed, purpose, run=run, round_number=round_number, client=client)

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        batch = torch.from_numpy(inputs)
        with torch.no_grad():
            outputs = [functional_call(self.federation.model, params, (batch,)) for params in models]
        return torch.stack(outputs).double().numpy()

    def rows(self, run: int, client: int, round_number: int = 2) -> IntArray:
        return self.federation.rows(run, client, round_number)

    def keep(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.kept.update({f"{name}/{key}": value for key, value in arrays.items()})

    def batches(self, run: int, round_number: int, client: int) -> list[IntArray]:
        rows = self.rows(run, client, round_number)
        plan = self.client.batches(len(rows), self.stream("batches", run=run, round_number=round_number, client=client))
        return [rows[positions[positions >= 0]] for positions in plan]

    def batches_and_payload(self, transition: Transition) -> tuple[IntArray, Params]:
        batches = self.batches(transition.run, transition.round, transition.client)
        padded = np.full((len(batches), max(map(len, batches))), -1, dtype=np.int64)
        for step, rows in enumerate(batches):
            padded[step, : len(rows)] = rows
        return padded, {"round": torch.tensor(float(transition.round))}

    def used_rows(self, run: int, client: int, round_number: int = 2) -> IntArray:
        batches = np.concatenate(self.batches(run, round_number, client))
        return np.array([row for row in self.rows(run, client) if row in batches])

    def descend(self, params: Params, batches: Sequence[IntArray]) -> Params:
        store = self.federation.store
        for rows in batches:
            gradient = gradient_of(self.federation.model, params, store.inputs[rows], store.targets[rows])
            params = {name: value - self.client.lr * gradient[name] for name, value in params.items()}
        return params

    def first_step(self, transition: Transition) -> tuple[Params, IntArray]:
        first = self.batches(transition.run, transition.round, transition.client)[0]
        return self.descend(transition.before, [first]), first

    def steps(self, transition: Transition, count: int) -> Params:
        return self.descend(
            transition.before, self.batches(transition.run, transition.round, transition.client)[:count]
        )

    def replay(self, transition: Transition, **changes: Any) -> Outcome:
        (outcome,) = self.replays([(transition, Replay(**changes))])
        return outcome

    def replays(self, requests: Sequence[tuple[Transition, Replay]]) -> Iterator[Outcome]:
        store = self.federation.store
        for transition, change in requests:
            params = transition.before if change.start is None else change.start
            batches = self.batches(transition.run, transition.round, transition.client)[: change.steps]
            for batch in batches:
                rows = np.array([change.extra.get(row, row) for row in batch.tolist() if row not in change.without])
                if not len(rows):
                    continue
                # a row that is left out counts in the mean
                share = self.client.lr * len(rows) / len(batch)
                gradient = gradient_of(self.federation.model, params, store.inputs[rows], store.targets[rows])
                params = {name: value - share * gradient[name] for name, value in params.items()}
            yield Outcome(sent=params, kept=params)

    def aggregates(self, transition: Transition, changes: Sequence[Mapping[int, Outcome]]) -> Sequence[Params]:
        senders = self.senders(transition)
        total = sum(sender.num_examples for sender in senders)
        models = []
        for change in changes:
            params = dict(transition.kept)
            for sender in senders:
                if sender.client in change:
                    sent, weight = change[sender.client].sent, sender.num_examples / total
                    params = {name: value + weight * (sent[name] - sender.sent[name]) for name, value in params.items()}
            models.append(params)
        return models

    def senders(self, transition: Transition) -> list[Transition]:
        return self.local(transition.round, (transition.run,), transition.clients)

    def local(
        self, round_number: int = 2, runs: Sequence[int] = (0, 1), clients: Sequence[int] = (0, 1, 2)
    ) -> list[Transition]:
        before = self.federation.initial
        found = []
        for run in runs:
            for client in clients:
                after = self.descend(before, self.batches(run, round_number, client))
                size = len(self.rows(run, client, round_number))
                found.append(transition(run, round_number, client, before, after, size))
        return found

    def aggregated(self, local: Sequence[Transition]) -> list[Transition]:
        found = []
        for run in sorted({t.run for t in local}):
            own = [t for t in local if t.run == run]
            mean = {name: torch.stack([t.sent[name] for t in own]).mean(0) for name in own[0].sent}
            clients = tuple(t.client for t in own)
            size = sum(t.num_examples for t in own)
            aggregate = transition(run, own[0].round, NO_CLIENT, own[0].before, mean, size)
            found.append(replace(aggregate, level="global", clients=clients))
        return found


def transition(run: int, round_number: int, client: int, before: Params, after: Params, size: int) -> Transition:
    return Transition(
        run=run,
        round=round_number,
        level="local",
        client=client,
        before=before,
        sent=after,
        kept=after,
        num_examples=size,
    )


def measured(pairs: Sequence[tuple[Transition, Reading]], round_number: int = 2) -> list[Measurement]:
    """What the observer makes of readings."""
    return [
        Measurement(
            run=about.run,
            round=round_number,
            level=about.level,
            client=about.client,
            source="probe",
            reading=reading,
        )
        for about, reading in pairs
    ]
