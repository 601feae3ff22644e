"""From a scenario to a federation: load, reserve, partition, inject, flip coins, draw fill-ins. Nothing trains here.

Everything that must not be trained on by a client (test, population, the spare rows of injections and fill-ins) is set
aside before partitioning. Each step draws from a stream of its own, so changing one leaves the draws of the others
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from fedmem.components import CanaryInjection
from fedmem.errors import ComponentError, Problem, ScenarioError
from fedmem.seeding import stream
from fedmem.spare import Spare
from fedmem.types import (
    AuditSet,
    BoolArray,
    ClientData,
    Dataset,
    Examples,
    Federation,
    IntArray,
    Params,
    References,
)

if TYPE_CHECKING:
    from torch import nn

    from fedmem.scenario import Scenario


def build(scenario: Scenario) -> Federation:
    """The federation of a scenario, with the coins and the fill-ins of all its runs.

    Guarantees:

    - test, population, base rows, audit examples and fill-ins are disjoint rows of the data set;
    - every column of the coins has exactly R/2 ones (R = 1: a fair coin) and is independent of all else;
    - under `exclusion: replace` a client has equally many rows in every run, and a fill-in stands in once in a run;
    - torch's global generator is left as it was.

    Errors: `ScenarioError` if the data have too few rows, `ComponentError` from the components.
    """
    data = _load(scenario)
    counts = _count(scenario, data)
    problems = _shortages(scenario, counts)
    if problems:
        raise ScenarioError(problems)
    plan = _lay_out(scenario, data)
    module, initial = _initialise(scenario, data)
    base = plan.base
    starts = np.cumsum([0, *(len(part.examples) for part in base)])
    fill_start = int(starts[-1]) + len(plan.audit)
    return Federation(
        store=Examples.concatenate([*(part.examples for part in base), plan.audit.examples, plan.spare]),
        base=tuple(np.arange(start, end) for start, end in pairwise(starts)),
        audit=plan.audit,
        audit_start=int(starts[-1]),
        fill=_fill_ins(scenario, plan, fill_start),
        test=data.test,
        population=plan.population,
        references=tuple(
            References(
                family=injection.name,
                inputs=injection.references(
                    scenario.references,
                    data.train.inputs.shape[1:],
                    stream(scenario.seed, f"references:{injection.name}"),
                ),
            )
            for injection in scenario.injections
            if isinstance(injection, CanaryInjection)
        ),
        model=module,
        initial=initial,
        num_classes=data.num_classes,
        counts=counts,
    )


def budget(scenario: Scenario) -> dict[str, int]:
    """Where each row of the data set goes: test, population, audit, fill-ins and base, which add up to total.

    `audit` counts the real rows that injections take, `base` what is left to partition: negative if the data are too
    few. Builds no model.
    """
    return _count(scenario, _load(scenario))


def check(scenario: Scenario) -> list[Problem]:
    """Every reason why `build` would fail, found by trying each step that does not hang on a failed one."""
    try:
        data = _load(scenario)
    except ComponentError as error:
        return [Problem(path=error.path, message=error.message)]
    problems = _shortages(scenario, _count(scenario, data))
    # Partition and injection are tried only with enough rows: their complaints would repeat the shortage.
    for step in (_initialise,) if problems else (_lay_out, _initialise):
        try:
            step(scenario, data)
        except ComponentError as error:
            problems.append(Problem(path=error.path, message=error.message))
    return problems


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Who holds what: the outcome of reserving, partitioning and injecting."""

    base: tuple[ClientData, ...]
    audit: AuditSet
    population: Examples
    spare: Examples


def _load(scenario: Scenario) -> Dataset:
    """The data set, split into train and test."""
    return scenario.dataset.load(stream(scenario.seed, "dataset"))


def _count(scenario: Scenario, data: Dataset) -> dict[str, int]:
    """The rows that each purpose gets; see `budget`."""
    audit = sum(injection.spare_rows(scenario.clients) for injection in scenario.injections)
    fill_ins = 0
    if scenario.exclusion == "replace":
        # All coins of a run may fall on out.
        fill_ins = sum(injection.total_copies(scenario.clients) for injection in scenario.injections)
    return {
        "test": len(data.test),
        "population": scenario.population,
        "audit": audit,
        "fill-ins": fill_ins,
        "base": len(data.train) - scenario.population - audit - fill_ins,
        "total": len(data.train) + len(data.test),
    }


def _shortages(scenario: Scenario, counts: dict[str, int]) -> list[Problem]:
    """A problem if less than one base row is left for each client."""
    if counts["base"] >= scenario.clients:
        return []
    train = counts["total"] - counts["test"]
    reserved = counts["audit"] + counts["fill-ins"]
    wanted = counts["population"] + reserved + scenario.clients
    message = (
        f"{counts['total']} rows less {counts['test']} for test leave {train}, but {wanted} are wanted: "
        f"population {counts['population']}, audit {counts['audit']}, fill-ins {counts['fill-ins']} "
        f"and one for each of {scenario.clients} clients; "
    )
    most = train - reserved - scenario.clients
    room = train - counts["population"] - scenario.clients
    fewer = _most_clients(scenario, train)
    # Lever -> how many rows it takes, and what it would have to become; only those that are enough on their own.
    levers: dict[str, tuple[int, str]] = {}
    if most >= 0 and counts["population"]:
        levers["population"] = (counts["population"], f"lower population to at most {most}")
    if reserved and room >= scenario.clients * len(scenario.injections):
        remedy = f"lower per_client or copies of the injections until audit and fill-ins need at most {room}"
        levers["injections"] = (reserved, remedy)
    if fewer:
        levers["clients"] = (scenario.clients, f"lower clients to at most {fewer}")
    remedies = [remedy for _, remedy in levers.values()]
    if counts["fill-ins"] and counts["base"] + counts["fill-ins"] >= scenario.clients:
        remedies.append("write `exclusion: remove`, which needs no fill-ins")
    # What nobody wrote is not to blame while there is something that somebody did write.
    written = {lever for lever in levers if scenario.locate(lever) != scenario.locate("")}
    path = max(written or levers or ["dataset"], key=lambda lever: levers.get(lever, (0, ""))[0])
    return [Problem(path=path, message=message + (", or ".join(remedies) or "use more data"))]


def _most_clients(scenario: Scenario, train: int) -> int:
    """How many clients these rows would be enough for, everything else being equal; 0 if for none."""

    def wanted(clients: int) -> int:
        copies = scenario.exclusion == "replace"
        reserved = sum(
            injection.spare_rows(clients) + copies * injection.total_copies(clients)
            for injection in scenario.injections
        )
        return scenario.population + reserved + clients

    # needs grow with the clients, so halving finds the last number that fits
    fits, fails = 0, scenario.clients
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if wanted(middle) <= train else (fits, middle)
    return fits


def _lay_out(scenario: Scenario, data: Dataset) -> _Plan:
    """Reserve, partition, inject."""
    counts = _count(scenario, data)
    rows = np.arange(len(data.train))
    population = _draw(rows, counts["population"], stream(scenario.seed, "population"))
    rows = np.setdiff1d(rows, population, assume_unique=True)
    reserve = _draw(rows, counts["audit"] + counts["fill-ins"], stream(scenario.seed, "spare"))
    rows = np.setdiff1d(rows, reserve, assume_unique=True)
    held = scenario.partition.assign(data, rows, scenario.clients, stream(scenario.seed, "partition"))
    given = np.sort(np.concatenate(held))
    if len(held) != scenario.clients or not np.array_equal(given, rows):
        raise ComponentError(
            "partition",
            f"gave {len(held)} clients {len(given)} rows, {len(np.unique(given))} of them different, "
            f"but {scenario.clients} clients must hold each of {len(rows)} rows once",
        )
    base = tuple(ClientData(client=client, examples=data.train.take(part)) for client, part in enumerate(held))
    spare = Spare(data.train.take(reserve))
    audit = _inject(scenario, data, base, spare)
    return _Plan(base=base, audit=audit, population=data.train.take(population), spare=spare.left())


def _draw(rows: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """`count` of these rows, sorted."""
    return np.sort(rng.choice(rows, size=count, replace=False))


def _inject(scenario: Scenario, data: Dataset, base: Sequence[ClientData], spare: Spare) -> AuditSet:
    """The audit examples of all injections, in the order of the scenario, and their coins."""
    parts: list[Examples] = [data.train.take(np.empty(0, dtype=np.int64))]
    kinds: list[str] = []
    roles: list[str] = []
    holders: list[int] = []
    copies: list[int] = []
    for i, injection in enumerate(scenario.injections):
        rng = stream(scenario.seed, f"injection:{i}:{injection.name}")
        try:
            planned = injection.plan(base, spare, data.num_classes, rng)
        except ComponentError as error:
            # An injection cannot know its place in the list.
            raise ComponentError(error.path.replace("injections", f"injections[{i}]", 1), error.message) from error
        announced = injection.total_copies(scenario.clients)
        if planned.copies.sum() > announced:
            raise ComponentError(
                f"injections[{i}]", f"plans {planned.copies.sum()} copies, but its total_copies announced {announced}"
            )
        parts.append(planned.examples)
        kinds += [injection.name] * len(planned.examples)
        roles += [injection.role] * len(planned.examples)
        holders += planned.holder.tolist()
        copies += planned.copies.tolist()
    examples = Examples.concatenate(parts)
    # Each injection numbers its generated examples from -1 on; together they need numbers of their own.
    ids = examples.ids.copy()
    ids[ids < 0] = -1 - np.arange(np.count_nonzero(ids < 0))
    return AuditSet(
        examples=replace(examples, ids=ids),
        kind=np.array(kinds, dtype=np.str_),
        role=np.array(roles, dtype=np.str_),
        holder=np.array(holders, dtype=np.int32),
        copies=np.array(copies, dtype=np.int32),
        is_in=_flip(scenario.runs, len(examples), stream(scenario.seed, "coins")),
    )


def _flip(runs: int, count: int, rng: np.random.Generator) -> BoolArray:
    """(runs, count) coins: each column has exactly runs/2 ones and is independent of the others."""
    if runs == 1:
        return rng.random((1, count)) < 0.5
    assert runs % 2 == 0, "the scenario admits 1 or an even number of runs"
    # Example by example, so that another injection at the end leaves the coins of the earlier ones as they are.
    half = np.tile(np.arange(runs) % 2 == 0, (count, 1))
    return np.ascontiguousarray(rng.permuted(half, axis=1).T)


def _fill_ins(scenario: Scenario, plan: _Plan, start: int) -> IntArray:
    """(R, copies in all) rows of the store that stand in for outs, -1 for none; the spare rows begin at `start`."""
    audit = plan.audit
    subject = np.repeat(np.arange(len(audit)), audit.copies)
    fill = np.full((audit.runs, len(subject)), -1, dtype=np.int64)
    if scenario.exclusion == "remove":
        return fill
    reserve = Spare(plan.spare)
    slots = [np.flatnonzero(audit.holder[subject] == data.client) for data in plan.base]
    for run in range(audit.runs):
        rng = stream(scenario.seed, "fill-ins", run=run)
        spare = reserve.fork()
        # In random order, so that no client is always the last to choose when a label runs out.
        for client in rng.permutation(len(plan.base)):
            outs = slots[client][~audit.is_in[run, subject[slots[client]]]]
            labels = plan.base[client].examples.targets
            fill[run, outs] = start + spare.positions_like(labels, len(outs), rng)
    return fill


def _initialise(scenario: Scenario, data: Dataset) -> tuple[nn.Module, Params]:
    """The network and its initial parameters, drawn from their own stream."""
    import torch

    seed = int(stream(scenario.seed, "initial weights").integers(2**63))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = scenario.model.build(data.train.inputs.shape[1:], data.num_classes)
    _check_pure(module)
    return module, {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def _check_pure(module: nn.Module) -> None:
    """Outputs have to follow from parameters and inputs alone, or watching a model would change it."""
    from torch.nn.modules.dropout import _DropoutNd

    for name, _ in module.named_buffers():
        raise ComponentError(
            "model",
            f"has the buffer {name!r}; running statistics belong to nobody when clients of many runs share one network "
            "and would be moved by being looked at. Use GroupNorm or LayerNorm instead of BatchNorm",
        )
    for name, part in module.named_modules():
        if isinstance(part, _DropoutNd) and part.p > 0:
            raise ComponentError(
                "model",
                f"has dropout at {name!r}, which draws from torch's global generator, so that the same scenario would "
                "give other numbers; leave it out (client.weight_decay regularises as well)",
            )
