"""Checks of training: clients, strategies, engines and executors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.client import (
    ClientAlgorithm,
    PersonalClient,
    PrivateAlgorithm,
    ScheduledClient,
    client_declaration,
)
from fedmem.contracts.defence import Defence, defence_declaration
from fedmem.contracts.estimator import Estimator
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.model import Model, TableModel, TextModel, is_trained_stacked
from fedmem.contracts.needs import needs_of
from fedmem.contracts.probe import Probe, probe_declaration
from fedmem.contracts.sampler import Sampler, sampler_declaration
from fedmem.contracts.signal import AnySignal, signal_declaration
from fedmem.contracts.strategy import StrategyMaker, strategy_declaration, why_no_mean, why_not_recomputed
from fedmem.errors import Problem
from fedmem.privacy import guaranteed_bounds
from fedmem.scenario.check_measuring import (
    _compares_clients,
)

if TYPE_CHECKING:
    from fedmem.scenario.normalising import Norm
    from fedmem.scenario.observing import Observe
    from fedmem.scenario.scenario import LeaveOut
    from fedmem.scenario.speed import Speed
    from fedmem.scenario.tied_dropout import TiedDropout


def _schedule(client: ClientAlgorithm, probes: Sequence[Probe]) -> Iterator[Problem]:
    if isinstance(client, ScheduledClient):
        return
    for position, probe in enumerate(probes):
        if any(needs_of(part).reads_gradients for _, part in nested_components(probe, "")):
            yield Problem(
                path=f"probes[{position}]",
                message=f"{kind_of(probe)} reads an update as a gradient times learning rates, but client "
                f"{kind_of(client)} does not say them. Its class has no method schedule(round_number, num_steps), "
                "which returns a fedmem.contracts.client.Schedule. Add the method, or use client: {kind: sgd}, or "
                "leave the probe out",
            )


def _training_read(
    client: ClientAlgorithm, norm: Norm | None, tied_dropout: TiedDropout | None, signals: Sequence[AnySignal]
) -> Iterator[Problem]:
    """Signals that read the objective and the steps of clients, which must be those of one network."""
    for position, signal in enumerate(signals):
        if not signal_declaration(signal).reads_training:
            continue
        reason = (
            f"client {kind_of(client)} each client has layers of its own; use client: {{kind: sgd}}"
            if isinstance(client, PersonalClient)
            else "norm local each client has layers of its own; use norm: {kind: averaged}"
            if norm is not None and norm.kind == "local"
            else "tied_dropout each example was trained on with units of its own; leave tied_dropout out"
            if tied_dropout is not None
            else "deduplicate a client trains on fewer copies than the objective counts; leave deduplicate out"
            if client_declaration(client).deduplication is not None
            else f"client {kind_of(client)} a client trains on fewer rows than the objective counts; use client: "
            "{kind: sgd}"
            if client_declaration(client).selection is not None
            else ""
        )
        if reason:
            yield Problem(
                path=f"signals[{position}]",
                message=f"{kind_of(signal)} reads the objective of one network, but with {reason}, or leave the signal "
                "out",
            )
        elif not isinstance(client, ScheduledClient):
            yield Problem(
                path=f"signals[{position}]",
                message=f"{kind_of(signal)} reads learning rates, but client {kind_of(client)} does not say them. Its "
                "class has no method schedule(round_number, num_steps), which returns a "
                "fedmem.contracts.client.Schedule. Add the method, or use client: {kind: sgd}, or leave the signal out",
            )


def _aggregates(strategy: StrategyMaker, probes: Sequence[Probe], observe: Observe) -> Iterator[Problem]:
    for position, probe in enumerate(probes):
        if "global" not in observe.levels or not probe_declaration(probe).recomputes_aggregates:
            continue
        reason = why_not_recomputed(strategy)
        if reason is not None:
            yield Problem(
                path=f"probes[{position}].levels",
                message=f"{kind_of(probe)} recomputes the aggregate from what clients send, but strategy "
                f"{kind_of(strategy)} {reason}. Write levels: [local], or use a strategy without a state, such as "
                "fedavg",
            )


def _means(strategy: StrategyMaker, signals: Sequence[AnySignal]) -> Iterator[Problem]:
    """Signals that form aggregates of fewer clients need a rule that is a weighted mean."""
    for position, signal in enumerate(signals):
        reason = why_no_mean(strategy) if signal_declaration(signal).needs_mean else None
        if reason is not None:
            yield Problem(
                path=f"signals[{position}]",
                message=f"{kind_of(signal)} forms the aggregates of fewer clients as weighted means, but strategy "
                f"{kind_of(strategy)} {reason}. Use strategy: {{kind: fedavg}}, or leave the signal out",
            )


def _check_payload_is_understood(strategy: StrategyMaker, client: ClientAlgorithm) -> Iterator[Problem]:
    declaration = strategy_declaration(strategy)
    client_kind = declaration.client
    if client_kind is not None and kind_of(client) != client_kind:
        yield Problem(
            path="client.kind",
            message=f"{kind_of(client)} does not understand the server payload of strategy {kind_of(strategy)}; "
            f"use client: {{kind: {client_kind}}}, or another strategy, such as fedavg",
        )
        return
    for name, value in declaration.client_fields.items():
        if getattr(client, name, value) != value:
            yield Problem(
                path=f"client.{name}",
                message=f"strategy {kind_of(strategy)} as it is set here reckons with {name}: {value:g}, but the "
                f"client has {getattr(client, name):g}; write {name}: {value:g}, or use another strategy, "
                "such as fedavg",
            )


def _deduplication(client: ClientAlgorithm) -> Iterator[Problem]:
    """Whether one record is there decides which duplicate is kept and how many rows there are, so neighbours differ."""
    if isinstance(client, PrivateAlgorithm) and client_declaration(client).deduplication is not None:
        yield Problem(
            path="client.deduplicate",
            message=f"the guarantee of {kind_of(client)} is for data sets that differ in one record and have equally "
            "many. After deduplication they may differ in more records, and in their number. Leave it out and "
            "deduplicate the data beforehand, or use client: {kind: sgd}",
        )


def _personal(client: ClientAlgorithm, observe: Observe, estimators: Sequence[Estimator]) -> Iterator[Problem]:
    if not isinstance(client, PersonalClient):
        return
    if "sum" in observe.levels:
        yield Problem(
            path=f"observe.levels[{observe.levels.index('sum')}]",
            message=f"a sum of models without the layers that {kind_of(client)} keeps at its clients predicts nothing; "
            "choose from: local, global, or use client: {kind: sgd}",
        )
    for position, estimator in enumerate(estimators):
        if _compares_clients(estimator):
            yield Problem(
                path=f"estimators[{position}]",
                message=f"{kind_of(estimator)} compares one aggregate for all, but with client {kind_of(client)} each "
                "owning client reads its own; use client: {kind: sgd}, or leave it out",
            )


def _noise_of_the_clip(defences: Sequence[Defence]) -> Iterator[Problem]:
    bound: float | None = None
    for position, defence in enumerate(defences):
        declaration = defence_declaration(defence)
        if declaration.norm_bound is not None:
            bound = declaration.norm_bound
        elif bound is not None and declaration.noise_norm not in (None, bound):
            yield Problem(
                path=f"defences[{position}].norm",
                message=f"noise is a multiple of the norm of the clip before it, which is {bound:g}, not "
                f"{declaration.noise_norm:g}; write norm: {bound:g}, or put noise before the clip",
            )


def _canary_clients(
    strategy: StrategyMaker,
    sampler: Sampler,
    client: ClientAlgorithm,
    clients: int,
    probes: Sequence[Probe],
    observe: Observe,
) -> Iterator[Problem]:
    yield from guaranteed_bounds.canary_clients(strategy, sampler, client, clients, probes, observe.levels)


def _check_central(
    central: str | None,
    sampler: Sampler,
    strategy: StrategyMaker,
    client: ClientAlgorithm,
    defences: Sequence[Defence],
    leave_out: LeaveOut,
    speed: Speed,
) -> Iterator[Problem]:
    if central is None:
        return
    work = client_declaration(client)
    for path, part, is_defined, why in (
        (
            "sampler.kind",
            sampler,
            sampler_declaration(sampler).law == "everyone",
            "passes over the data are the same only where all take part in each round; use everyone",
        ),
        (
            "strategy.kind",
            strategy,
            strategy_declaration(strategy).central,
            "there is one model and nothing to aggregate; use fedavg",
        ),
        ("client.kind", client, work.central, "what else a client does is not defined where there is one; use sgd"),
    ):
        if not is_defined:
            yield Problem(path=path, message=f"central training cannot use {kind_of(part)}: {why}")
    if work.steps is not None:
        yield Problem(
            path="client.steps",
            message=f"{work.steps} steps are of each client; one client that holds everything would take as many and "
            "see fewer examples; use epochs",
        )
    if defences:
        yield Problem(path="defences", message="no update leaves a client in central training; leave them out")
    if leave_out.clients:
        yield Problem(path="leave_out", message="there are no clients to leave out in central training; leave it out")
    if speed.engine == "flower":
        yield Problem(path="speed.engine", message="central training has no runtime of many; use engine: lockstep")


def _executor(speed: Speed, model: Model | TableModel | TextModel) -> Iterator[Problem]:
    if speed.executor == "stacked" and not is_trained_stacked(model, speed.device):
        yield Problem(
            path="speed.executor",
            message=f"model {kind_of(model)} does not declare that it can be trained as a stack. Use executor: "
            "one_by_one or auto, or write `stackable = True` in the class if it is your own",
        )


def _precision(speed: Speed, client: ClientAlgorithm) -> Iterator[Problem]:
    """Precisions that the device does not have, or that would break what a client guarantees."""
    if speed.device == "mps" and isinstance(client, PrivateAlgorithm):
        yield Problem(
            path="speed.device",
            message=f"{kind_of(client)} measures gradients in float64, which GPUs of Apple do not have; use device: "
            "cpu",
        )
    if speed.precision == "tf32" and speed.device != "cuda":
        yield Problem(
            path="speed.precision",
            message=f"tf32 is a format of NVIDIA's GPUs, but speed.device is {speed.device}; use device: cuda, or "
            "precision: fp32 or bf16",
        )
    elif speed.precision == "tf32" and isinstance(client, PrivateAlgorithm):
        yield Problem(
            path="speed.precision",
            message=f"tf32 would also round the sums of the clipped gradients of {kind_of(client)}. They could then "
            "exceed the clip; use precision: bf16, which leaves sums alone, or fp32",
        )
    if speed.precision == "bf16" and speed.device == "mps":
        yield Problem(
            path="speed.precision",
            message="bf16 is not available with device: mps; use precision: fp32, or device: cpu or cuda",
        )


def _rule(speed: Speed, strategy: StrategyMaker) -> Iterator[Problem]:
    if speed.server == "rule" and strategy_declaration(strategy).rule is None:
        yield Problem(
            path="speed.server",
            message=f"strategy {kind_of(strategy)} has no rule; use server: messages or auto",
        )


def _flower(speed: Speed) -> Iterator[Problem]:
    """Settings of speed that cannot apply if every client trains in a process of Flower's runtime."""
    if speed.engine != "flower":
        if speed.address is not None:
            yield Problem(
                path="speed.address",
                message="names a Ray cluster, which engine lockstep does not use; use engine: flower, or leave it out",
            )
        return
    if speed.executor == "stacked":
        yield Problem(
            path="speed.executor",
            message="engine flower trains each client by itself, in a worker process, so that nothing can be stacked; "
            "use executor: one_by_one or auto, or engine: lockstep",
        )
    if speed.server == "rule":
        yield Problem(
            path="speed.server",
            message="engine flower aggregates what comes in messages; use server: messages or auto, or engine: "
            "lockstep",
        )
    if speed.device in ("cuda", "mps"):
        yield Problem(
            path="speed.device",
            message="engine flower trains on processors only; use device: cpu, or engine: lockstep",
        )
    if speed.address is not None and speed.workers != "auto":
        yield Problem(
            path="speed.workers",
            message=f"{speed.workers} workers cannot be asked for where speed.address names a cluster: it has as many "
            "as its cores allow. Use workers: auto, or leave address out",
        )
