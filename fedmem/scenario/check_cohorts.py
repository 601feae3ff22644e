"""Checks of participation: cohorts, samplers, rosters and left-out clients."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from fedmem.contracts.estimator import Estimator
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.injection import Injection
from fedmem.contracts.probe import Probe, probe_declaration
from fedmem.contracts.sampler import Sampler, sampler_declaration
from fedmem.contracts.strategy import StrategyMaker, strategy_declaration
from fedmem.errors import FedmemError, Problem
from fedmem.scenario.check_measuring import (
    _compares_clients,
    _compares_held_out,
)

if TYPE_CHECKING:
    from fedmem.scenario.observing import Observe
    from fedmem.scenario.scenario import LeaveOut
    from fedmem.scenario.speed import Speed


def _cohort(sampler: Sampler, clients: int) -> Iterator[Problem]:
    for path, part in nested_components(sampler, "sampler"):
        declaration = sampler_declaration(part)
        sizes = {"size": declaration.size, "candidates": declaration.candidates, "expected": declaration.expected}
        for name, size in sizes.items():
            if size is not None and size > clients:
                yield Problem(
                    path=f"{path}.{name}",
                    message=f"a cohort of {size:g} cannot be drawn from {clients} clients; "
                    f"lower {path}.{name} to at most {clients} or raise clients",
                )


def _separation(sampler: Sampler, clients: int) -> Iterator[Problem]:
    for path, part in nested_components(sampler, "sampler"):
        declaration = sampler_declaration(part)
        size, separation = declaration.size, declaration.separation
        if size is not None and separation is not None and size <= clients < size * separation:
            yield Problem(
                path=f"{path}.separation",
                message=f"cohorts of {size} in each of {separation} rounds are {size * separation} different clients, "
                f"but there are {clients}. Lower {path}.separation to at most {clients // size}, or {path}.size to at "
                f"most {max(1, clients // separation)}, or raise clients",
            )


def _preference(sampler: Sampler, injections: Sequence[Injection]) -> Iterator[Problem]:
    has_atypical = any(injection.role == "atypical" for injection in injections)
    for path, part in nested_components(sampler, "sampler"):
        if has_atypical or not sampler_declaration(part).prefers_atypical:
            continue
        yield Problem(
            path=path,
            message=f"{kind_of(part)} prefers clients that hold atypical examples, but no injection makes "
            "any; add one, such as {kind: mislabelled}, or use {kind: uniform}",
        )


def _learning(sampler: Sampler, roster: str) -> Iterator[Problem]:
    needs = sampler_declaration(sampler).needs
    if needs and roster == "shared":
        yield Problem(
            path="sampler",
            message=f"{kind_of(sampler)} reads {' and '.join(needs)}: these depend on which examples are in, so "
            "runs cannot share cohorts drawn from their own. Use roster: pilot, which reads them from one run "
            "more, or "
            "use roster: per_run, with estimates at level global only, or another sampler",
        )


def _picked_by_coins(sampler: Sampler, roster: str, probes: Sequence[Probe]) -> Iterator[Problem]:
    if roster != "per_run" or not sampler_declaration(sampler).needs:
        return
    for position, probe in enumerate(probes):
        if _compares_held_out(probe):
            yield Problem(
                path=f"probes[{position}]",
                message=f"{kind_of(probe)} compares examples that are in with examples that are held out. But with "
                f"roster: per_run, {kind_of(sampler)} picks clients by losses or norms that depend on the "
                "same random inclusion. Use roster: pilot, or leave the probe out",
            )


def _enough_clients(strategy: StrategyMaker, sampler: Sampler, clients: int) -> Iterator[Problem]:
    min_cohort = strategy_declaration(strategy).min_cohort
    # the cohorts of other samplers vary, and are not known before they are drawn
    declaration = sampler_declaration(sampler)
    size = clients if declaration.law == "everyone" else declaration.size
    if size is not None and size < min_cohort:
        yield Problem(
            path="strategy",
            message=f"{kind_of(strategy)} as it is set here needs cohorts of at least {min_cohort}, but they are of "
            f"{size}; raise {'clients' if declaration.law == 'everyone' else 'sampler.size'}, or "
            f"{_lower_text(strategy, min_cohort)}",
        )


def _lower_text(strategy: StrategyMaker, min_cohort: int) -> str:
    """The whole numbers of a strategy without which it would need fewer clients, such as the f of krum."""
    lower = []
    record: Any = strategy
    for item in fields(record) if is_dataclass(record) else ():
        value = getattr(record, item.name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            continue
        with suppress(FedmemError, ValueError):
            if strategy_declaration(replace(record, **{item.name: value - 1})).min_cohort < min_cohort:
                lower.append(f"strategy.{item.name}")
    return f"lower {' or '.join(lower)}" if lower else f"choose another strategy than {kind_of(strategy)}"


def _left_out(leave_out: LeaveOut, clients: int, runs: int) -> Iterator[Problem]:
    selection = leave_out.clients
    if isinstance(selection, int) and selection > clients:
        yield Problem(
            path="leave_out.clients",
            message=f"{selection} clients cannot be drawn from {clients}; use at most {clients}, or all, "
            "or raise clients",
        )
    listed = selection if isinstance(selection, tuple) else ()
    for position, client in enumerate(listed):
        if client >= clients:
            yield Problem(
                path=f"leave_out.clients[{position}]",
                message=f"client {client} does not exist, there are {clients}; use 0 to {clients - 1}, "
                "or raise clients",
            )
        elif client in listed[:position]:
            yield Problem(
                path=f"leave_out.clients[{position}]", message=f"client {client} is named twice; name it once"
            )
    if selection and runs < 2:
        yield Problem(
            path="leave_out",
            message="a client is left out of half of the runs, but runs is 1; set runs to 4 or more, or leave it out",
        )


def _somebody_to_leave_out(
    estimators: Sequence[Estimator], probes: Sequence[Probe], leave_out: LeaveOut
) -> Iterator[Problem]:
    comparing: list[tuple[str, object]] = [
        (f"estimators[{i}]", part) for i, part in enumerate(estimators) if _compares_clients(part)
    ]
    comparing += [(f"probes[{i}]", part) for i, part in enumerate(probes) if probe_declaration(part).compares_clients]
    for path, part in comparing:
        if not leave_out.clients:
            yield Problem(
                path=path,
                message=f"{kind_of(part)} compares runs with and without a client, but every client is in every "
                "run; add leave_out: {clients: all}, or leave it out",
            )


def _roster(roster: str, observe: Observe, estimators: Sequence[Estimator]) -> Iterator[Problem]:
    if roster == "per_run" and estimators and set(observe.levels) == {"local"}:
        yield Problem(
            path="roster",
            message="with a participation schedule of its own in each run, whether a client is picked may depend on "
            "which examples are in. So estimates exist at level global only. Add global to observe.levels, or use "
            "roster: shared (roster: pilot for samplers that look at losses or norms)",
        )


def _whole_cohort(strategy: StrategyMaker, sampler: Sampler, clients: int, cohort_by: str) -> Iterator[Problem]:
    """A Flower strategy that would train a part of the cohort is known once it is made."""
    size = sampler_declaration(sampler).size or clients
    if cohort_by == "strategy":
        return
    made: object = None
    flower_logger = logging.getLogger("flwr")
    was_disabled, flower_logger.disabled = flower_logger.disabled, True  # it warns of every strategy that is made
    try:
        with suppress(Exception, SystemExit):  # a strategy that cannot be made is reported when it is run
            made = strategy.make(size)
    finally:
        flower_logger.disabled = was_disabled
    from flwr.serverapp.strategy import FedAvg

    if isinstance(made, FedAvg) and max(int(made.fraction_train * size), made.min_train_nodes) < size:
        yield Problem(
            path="strategy",
            message=f"{kind_of(strategy)} has fraction_train {made.fraction_train:g}, so it would train fewer "
            "clients than the sampler chooses. Make it with fraction_train=1.0, or write `cohort_by: strategy` to let "
            "it choose among the sampler's cohort",
        )


def _free_cohort(speed: Speed, cohort_by: str) -> Iterator[Problem]:
    if speed.server == "rule" and cohort_by == "strategy":
        yield Problem(
            path="speed.server",
            message="a rule does not pick clients, but cohort_by is strategy; use server: messages, or "
            "cohort_by: sampler",
        )
