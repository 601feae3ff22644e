"""Checks of shards of clients: parts that would mix constituents, or that read a network with one training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.client import ClientAlgorithm, PersonalClient, PrivateAlgorithm
from fedmem.contracts.defence import Defence, defence_declaration
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.needs import needs_of
from fedmem.contracts.probe import Probe
from fedmem.contracts.signal import signal_declaration
from fedmem.contracts.strategy import StrategyMaker, strategy_declaration, why_more_is_sent
from fedmem.contracts.unlearner import Unlearner, unlearner_declaration
from fedmem.errors import Problem

if TYPE_CHECKING:
    from fedmem.contracts.sampler import Sampler
    from fedmem.scenario.normalising import Norm
    from fedmem.scenario.observing import Observe
    from fedmem.scenario.phases import After
    from fedmem.scenario.scenario import LeaveOut, Tolerate
    from fedmem.scenario.speed import Speed
    from fedmem.scenario.tied_dropout import TiedDropout

PATH = "client_shards"
REMEDY = "or write client_shards: 1"


def _shards_of_clients(client_shards: int, clients: int, central: str | None) -> Iterator[Problem]:
    if client_shards == 1:
        return
    if central is not None:
        yield Problem(path=PATH, message="central training has one client, which cannot be in shards; write 1")
    elif client_shards > clients:
        yield Problem(
            path=PATH,
            message=f"{clients} clients cannot fill {client_shards} shards; write {clients} or less, or raise clients",
        )


def _shards_left(client_shards: int, clients: int, leave_out: LeaveOut, after: After | None) -> Iterator[Problem]:
    """In every run and phase, each shard has a client that may take part."""
    from fedmem.scenario.phases import forgotten_until

    if client_shards == 1 or client_shards > clients:
        return
    gone = set() if after is None else {*forgotten_until(after.scenario).clients, *after.forget.clients}
    shards = [set(range(shard, clients, client_shards)) for shard in range(client_shards)]
    missing = leave_out.clients
    if isinstance(missing, int):
        # any of them may be drawn
        empty = [shard for shard, members in enumerate(shards) if missing and len(members - gone) <= missing]
    else:
        absent = set(range(clients)) if missing == "all" else set(missing)
        empty = [shard for shard, members in enumerate(shards) if members - gone <= absent]
    forgotten = [shard for shard, members in enumerate(shards) if members <= gone]
    if forgotten:
        yield Problem(
            path="after.forget.clients",
            message=f"no client of shard {forgotten[0]} is left to train its network; forget fewer of "
            f"{sorted(shards[forgotten[0]])}, or write fewer client_shards",
        )
    elif empty:
        yield Problem(
            path="leave_out.clients",
            message=f"in some runs shard {empty[0]} may have no client to train its network; leave out fewer of "
            f"{sorted(shards[empty[0]])}, or write fewer client_shards",
        )


def _shards_trained(
    client_shards: int,
    client: ClientAlgorithm,
    strategy: StrategyMaker,
    defences: Sequence[Defence],
    cohort_by: str,
    speed: Speed,
) -> Iterator[Problem]:
    """The rule of a strategy is applied shard by shard, and accounts for no noise."""
    if client_shards == 1:
        return
    if isinstance(client, PersonalClient):
        yield Problem(
            path="client", message=f"{kind_of(client)} keeps layers at each client, not in a shard; use sgd, {REMEDY}"
        )
    noisy: list[tuple[str, object]] = [("client", client)] if isinstance(client, PrivateAlgorithm) else []
    noisy += [("strategy", strategy)] if strategy_declaration(strategy).noisy else []
    noisy += [
        (f"defences[{i}]", part)
        for i, part in enumerate(defences)
        if defence_declaration(part).gaussian_deviation is not None
    ]
    for path, part in noisy:
        yield Problem(
            path=path,
            message=f"{kind_of(part)} adds noise for a privacy guarantee, which is stated for one model that all "
            f"clients train; use a part without noise, {REMEDY}",
        )
    declared, reason = strategy_declaration(strategy), why_more_is_sent(strategy)
    if reason is not None:
        yield Problem(
            path="strategy",
            message=f"each shard has a server of its own that sends its model alone, but {kind_of(strategy)} {reason}; "
            f"use fedavg, {REMEDY}",
        )
    if declared.min_cohort > 1:
        yield Problem(
            path="strategy",
            message=f"{kind_of(strategy)} is robust with {declared.min_cohort} clients or more, and each shard has a "
            f"smaller cohort of its own; use fedavg, {REMEDY}",
        )
    if cohort_by != "sampler":
        yield Problem(
            path="cohort_by", message=f"a strategy picks clients without regard to shards; write sampler, {REMEDY}"
        )
    if speed.engine != "lockstep":
        yield Problem(
            path="speed.engine", message=f"clients in shards are trained by the engine lockstep; write that, {REMEDY}"
        )


def _shards_of_networks(client_shards: int, norm: Norm | None, tied_dropout: TiedDropout | None) -> Iterator[Problem]:
    if client_shards == 1:
        return
    if norm is not None and norm.is_updated:
        yield Problem(
            path="norm",
            message=f"{norm.kind} updates running statistics, which clients in shards do not have; write norm: "
            f"{{kind: to_group}} or {{kind: frozen}}, {REMEDY}",
        )
    if tied_dropout is not None:
        yield Problem(
            path="tied_dropout",
            message=f"names modules of one network, and there are {client_shards}; leave it out, {REMEDY}",
        )


def _shards_watched(
    client_shards: int, probes: Sequence[Probe], signals: Sequence[object], observe: Observe
) -> Iterator[Problem]:
    """Updates are of one constituent, but gradients, blocks and last layers would be those of all together."""
    if client_shards == 1:
        return
    if "sum" in observe.levels:
        yield Problem(
            path="observe.levels",
            message=f"a sum over clients would mix the updates of shards; leave sum out, {REMEDY}",
        )
    for position, probe in enumerate(probes):
        if any(needs_of(part).reads_gradients for _, part in nested_components(probe, "")):
            yield Problem(
                path=f"probes[{position}]",
                message=f"{kind_of(probe)} reads an update as the gradient of the evaluated network, but a client "
                f"trains the network of its shard alone. Leave the probe out, {REMEDY}",
            )
    for position, signal in enumerate(signals):
        declared = signal_declaration(signal)
        what = (
            "updates"
            if declared.reads_update
            else "blocks"
            if declared.min_blocks
            else "the last layer"
            if declared.trains_last_layer
            else "the objective"
            if declared.reads_training
            else ""
        )
        if what:
            yield Problem(
                path=f"signals[{position}]",
                message=f"{kind_of(signal)} reads {what} of one network, and there are {client_shards}; leave it out, "
                f"{REMEDY}",
            )


def _shards_unlearnt(client_shards: int, unlearner: Unlearner | None) -> Iterator[Problem]:
    """Unlearners that average or reset would mix constituents."""
    if client_shards == 1 or unlearner is None:
        return
    declared = unlearner_declaration(unlearner)
    if declared.steps or declared.stored_models or declared.trained_rounds or declared.blocks:
        yield Problem(
            path="unlearner",
            message=f"{kind_of(unlearner)} changes or averages whole models, and clients train the network of their "
            f"shard alone; use sisa, retrain or fine_tune, {REMEDY}",
        )


def _shards_trained_again(
    unlearner: Unlearner | None, sampler: Sampler, roster: str, tolerate: Tolerate, cohort_by: str
) -> Iterator[Problem]:
    """The first training is repeated for some clients as if the others were there."""
    from fedmem.contracts.sampler import sampler_declaration

    if unlearner is None or not unlearner_declaration(unlearner).trains_shards:
        return
    kind = kind_of(unlearner)
    if roster == "per_run" and sampler_declaration(sampler).needs:
        yield Problem(
            path="roster",
            message=f"{kind} repeats the first training without some clients, but {kind_of(sampler)} picks clients by "
            "what all of them did. Use a sampler that draws blindly, such as uniform",
        )
    if cohort_by != "sampler":
        yield Problem(
            path="cohort_by",
            message=f"{kind} repeats the first training without some clients, so that a strategy would pick others; "
            "write sampler",
        )
    if tolerate.max_failed_share:
        yield Problem(
            path="tolerate.max_failed_share",
            message=f"{kind} repeats the first training, and does not know which clients failed in it; write 0",
        )
