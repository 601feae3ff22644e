"""Problems that void the guarantee of noise at clients: of the defences `clip` and `noise`, and of private clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.client import ClientAlgorithm, PrivateAlgorithm, client_declaration
from fedmem.contracts.defence import Defence
from fedmem.contracts.families import kind_of
from fedmem.contracts.sampler import Sampler
from fedmem.contracts.strategy import StrategyMaker
from fedmem.errors import Problem
from fedmem.privacy.coverage import uncovered_by_clients
from fedmem.privacy.mechanisms import adds_noise, large_delta, noise_at_clients

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Privacy


def record_adjacency(client: ClientAlgorithm, privacy: Privacy) -> Iterator[Problem]:
    """Refuse `add_remove` for records: one row more changes the sampling rate of all others, and the local steps."""
    if isinstance(client, PrivateAlgorithm) and privacy.adjacency == "add_remove":
        yield Problem(
            path="privacy.adjacency",
            message=f"add_remove does not hold for the records of client {kind_of(client)}. Its sampling rate, "
            "batch_size / rows, and its steps in an epoch depend on the number of rows. One record more changes how "
            "often all others are drawn. Use zero_out (the default for records) or replace, which keep the number of "
            "rows",
        )


def problems(
    client: ClientAlgorithm,
    strategy: StrategyMaker,
    sampler: Sampler,
    defences: Sequence[Defence],
    privacy: Privacy,
    clients: int,
    cohort_by: str,
    roster: str,
) -> Iterator[Problem]:
    """Problems that void the guarantee of noise at clients: exact values, unknown sampling, and a large delta."""
    records = isinstance(client, PrivateAlgorithm)
    whole = any(noise_at_clients(defences, privacy, 1, ""))
    if not records and not whole:
        return
    noisy = f"client {kind_of(client)}" if records else "the defence noise"
    for reader, exact in uncovered_by_clients(strategy, sampler, client, roster):
        server = reader.path == "strategy"
        declare = "reads only updates, declare reads: ClassVar[tuple[str, ...]] = ()"
        if reader.reads & {"steps", "lr"} and not client_declaration(client).steps_by_rows:
            declare = "takes steps by its rows alone, declare on the client steps_by_rows: ClassVar[bool] = True"
        yield Problem(
            path=reader.path,
            message=f"{reader.kind} reads {exact} of clients, which have no noise, so the guarantee of {noisy} would "
            f"not hold for the models. Use {'fedavg' if server else 'uniform'}, or, for a class of your own that "
            f"{declare}",
        )
    if cohort_by == "strategy":
        yield Problem(
            path="cohort_by",
            message=f"how strategy {kind_of(strategy)} would pick clients is not known, so that {noisy} guarantees "
            "nothing; use cohort_by: sampler",
        )
    if whole and privacy.delta >= 1 / clients and not adds_noise(strategy):
        yield large_delta(privacy.delta, clients)
