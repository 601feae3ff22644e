"""Which rows go where: clients, reserve, population, references and audit examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.contracts.audit_set import FOREVER, AuditSet, InjectionPlan, References
from fedmem.contracts.data import ClientData, Dataset, Examples, FeatureShift, Space
from fedmem.contracts.injection import CanaryInjection, Injection, has_coins, injection_declaration
from fedmem.contracts.ragged import Ragged
from fedmem.contracts.reserve import Reserve
from fedmem.contracts.validation import injected_of, references_of
from fedmem.errors import ComponentError
from fedmem.federation.aims import plan_aimed, positions_aimed_at, target_plan
from fedmem.federation.coin_draws import draw_client_coins, draw_coins, draw_one_of, draw_rates
from fedmem.federation.coin_groups import coin_groups, groups_warnings, share_coins
from fedmem.federation.feature_shift import carries_real_rows
from fedmem.federation.held_rows import HeldRows, OwnReplacements, notes_of, warnings_of
from fedmem.federation.own_rows import masked_copies, owners_of_copies
from fedmem.federation.row_budget import draw, population_of, total_copies
from fedmem.federation.set_aside import BaseRows, PlanOne, row_counts, set_aside
from fedmem.guards.guarding import Guard
from fedmem.modalities.text.windows import prefix_and_start
from fedmem.seeding import stream

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The rows of each client: the result of reserving, partitioning and injecting.

    `base` are positions in the training rows, and `targets` (n, …) the targets of these rows, part by part. `labels`
    are the labels of all rows that the partition gave each client. `copy_index` (copies in all,) are positions in
    `extra`, -1 where a copy is the audit example itself. `unmasked` says which copies are trained on whatever their
    coin says. `replacements` (copies in all,) are positions in `extra` of replacement rows that an injection made
    itself. They are -1 where replacement rows come from the reserve or from the owning client.

    `own` are the replacement rows of injections that take rows which clients hold, and `own_rows` the rows themselves.
    `certain` (m,) says which examples are in in every run, and `num_taken` how many rows of clients are audited.
    `reserve_owners` are the clients of the rows of `reserve`. `foreign` counts rows of other owners by injection, with
    a partition by owner. Both are None otherwise. `counts` are the rows of each purpose before rows are taken of
    clients, and `names` are the names of the clients.
    """

    base: Ragged
    targets: IntArray
    labels: Ragged
    audit: AuditSet
    extra: Examples
    copy_index: IntArray
    unmasked: BoolArray
    replacements: IntArray
    population: Examples
    reserve: Examples
    reserve_owners: IntArray | None
    foreign: Mapping[str, int] | None
    counts: Mapping[str, int]
    names: tuple[str, ...]
    space: Space
    own: tuple[OwnReplacements, ...]
    own_rows: Examples
    certain: BoolArray
    num_taken: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def _lay_out(scenario: Scenario, data: Dataset) -> _Plan:
    """Set aside, partition, inject."""
    population, space = population_of(scenario, data), Space.of(data)
    rows = set_aside(scenario, data, _planner(scenario, space))
    parts, base = rows.base, BaseRows(data.train, rows.base, rows.reserved, rows.names)
    away = {
        "in the population": data.train.ids[population],
        "set aside for other injections": np.delete(data.train.ids, np.concatenate([population, rows.unreserved])),
    }
    held = HeldRows(scenario, data, parts, rows.names, away)
    additions: list[InjectionPlan] = []
    own: list[OwnReplacements] = []
    for i, injection in enumerate(scenario.injections):
        of_injection = rows.classes.get(_reserved_class(injection), rows.reserve)
        takes_held = injection_declaration(injection).takes_held
        if takes_held:
            held.require_rows(i, injection)
        additions.append(_plan_injection(scenario, i, held if takes_held else base, of_injection, space, additions))
        replacements_of_owner = held.take(i, additions[-1])
        own += [] if replacements_of_owner is None else [replacements_of_owner]
    kept = held.remaining()
    _some_left(scenario, additions, space)
    nothing = data.train.take(np.empty(0, dtype=np.int64))
    audit = _audit(scenario, additions, nothing)
    extras = [part.extra or nothing for part in additions]
    replacements = _number_rows(
        [part.replacements or nothing for part in additions], sum(len(part.examples) for part in additions)
    )
    return _Plan(
        base=kept,
        targets=data.train.targets[kept.rows],
        labels=Ragged(rows=data.train.labels[parts.rows], starts=parts.starts),
        audit=audit,
        extra=Examples.concatenate([nothing, *extras, *replacements]),
        copy_index=_copy_positions(additions, extras),
        unmasked=_is_unmasked(additions),
        replacements=_replacements(additions, sum(map(len, extras))),
        population=data.train.take(population),
        reserve=rows.reserve.remaining(),
        reserve_owners=rows.reserve.remaining_owners(),
        foreign=None if rows.ownership is None else rows.ownership.foreign_rows(scenario, additions),
        counts=rows.counts,
        names=rows.names,
        space=space,
        own=tuple(own),
        own_rows=data.train.take(np.concatenate([np.empty(0, dtype=np.int64), *(pool.rows.rows for pool in own)])),
        certain=_is_certain(scenario, additions),
        num_taken=sum(0 if part.taken is None else len(part.taken) for part in additions),
        notes=notes_of(scenario.injections, additions, own),
        warnings=(*warnings_of(scenario.injections, additions), *groups_warnings(audit)),
    )


def count_rows(scenario: Scenario, data: Dataset) -> Mapping[str, int]:
    """The number of rows of each purpose before injections take rows that clients hold."""
    return row_counts(scenario, data, _planner(scenario, Space.of(data)))


def _planner(scenario: Scenario, space: Space) -> PlanOne:
    """A trial of each plan, in the order of the scenario. An injection that takes rows of clients has none."""
    trials: list[InjectionPlan | None] = [None] * len(scenario.injections)

    def plan_one(i: int, clients: Sequence[ClientData], reserve: Reserve) -> InjectionPlan:
        trials[i] = plan = _plan_injection(scenario, i, clients, reserve, space, trials)
        return plan

    return plan_one


def _is_certain(scenario: Scenario, additions: Sequence[InjectionPlan]) -> BoolArray:
    """(m,) which examples no coin decides about."""
    without_coins = [not has_coins(injection, scenario.runs) for injection in scenario.injections]
    return np.repeat(without_coins, [len(part.examples) for part in additions]).astype(bool)


def _references(scenario: Scenario, injection: CanaryInjection, space: Space) -> References:
    """Fresh members of the family of an injection."""
    with Guard("injection", injection, "references") as guard:
        references = injection.references(
            scenario.references, space, stream(scenario.seed, f"references:{injection.name}")
        )
        return references_of(
            guard, references, injection.name, count=scenario.references, like=space.low, tokens=space.modality.tokens
        )


def _plan_injection(
    scenario: Scenario,
    i: int,
    base: Sequence[ClientData],
    reserve: Reserve,
    space: Space,
    earlier: Sequence[InjectionPlan | None],
) -> InjectionPlan:
    """The rows that the injection at position i adds, checked against its announcement.

    An aimed injection is given the plan among the `earlier` ones that it aims at.
    """
    injection = scenario.injections[i]
    try:
        with Guard("injection", injection, "plan") as guard:
            rng, targets = stream(scenario.seed, f"injection:{i}:{injection.name}"), target_plan(scenario, i, earlier)
            addition = plan_aimed(injection, targets, base, reserve, space, rng)
            injected_of(
                guard,
                addition,
                clients=scenario.clients,
                classes=space.num_classes,
                space=space,
            )
    except ComponentError as error:
        # An injection cannot know its place in the list.
        raise ComponentError(error.path.replace("injections", f"injections[{i}]", 1), error.message) from error
    if isinstance(scenario.partition, FeatureShift) and carries_real_rows(injection.role, addition):
        raise ComponentError(
            f"injections[{i}]",
            "trains on real images that carry a canary and keep their pixels, while the partition changes all other "
            "real rows of a client. So in and out would differ in more than the canary. Use another "
            "partition, or a canary that needs no real row, such as random_pattern",
        )
    if (addition.taken is not None) != injection_declaration(injection).takes_held:
        raise ComponentError(
            f"injections[{i}]",
            "an injection whose plan has `taken`, and only this, declares `takes_held = True`; add one of the two",
        )
    if addition.unmasked and addition.unmasked >= addition.copies.min(initial=addition.unmasked + 1):
        raise ComponentError(
            f"injections[{i}].unmasked",
            f"{addition.unmasked} of {addition.copies.min()} copies are unmasked, so that random inclusion would "
            f"decide nothing; write at most {addition.copies.min() - 1}, or more copies",
        )
    announced = total_copies(injection, scenario.clients, space.num_rows)
    if addition.copies.sum() > announced:
        raise ComponentError(
            f"injections[{i}]", f"plans {addition.copies.sum()} copies, but its total_copies announced {announced}"
        )
    return addition


def _some_left(scenario: Scenario, additions: Sequence[InjectionPlan], space: Space) -> None:
    """Errors: `ComponentError` where all members of a template are planted, by any injections, and none is left."""
    for i, injection in enumerate(scenario.injections):
        if not isinstance(injection, CanaryInjection) or not space.modality.tokens:
            continue
        members = _references(scenario, injection, space).space
        if members is None or members.size > sum(len(part.examples) for part in additions):
            continue
        texts = (
            prefix_and_start(*row)[0]
            for part in additions
            for row in zip(part.examples.inputs, part.examples.targets, strict=True)
        )
        if len({members.index(text) for text in texts if members.has(text)}) == members.size:
            raise ComponentError(
                f"injections[{i}].template",
                f"all {members.size} members of the template are planted, by this injection and others, so that none "
                "is left to compare with; give it more places",
            )


def _audit(scenario: Scenario, additions: Sequence[InjectionPlan], nothing: Examples) -> AuditSet:
    """The audit examples of all injections, in the order of the scenario, and their coins."""
    sizes = [len(part.examples) for part in additions]
    examples = Examples.concatenate([nothing, *(part.examples for part in additions)])
    # Each injection numbers its generated examples from -1 on; together they need numbers of their own.
    ids = examples.ids.copy()
    ids[ids < 0] = -1 - np.arange(np.count_nonzero(ids < 0))

    def per_injection(values: Sequence[int]) -> NDArray[np.int32]:
        return np.repeat(np.array(values, dtype=np.int32), sizes)

    def concatenate(parts: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
        return np.concatenate([np.empty(0, dtype=np.int32), *parts])

    group, rates = coin_groups(scenario.injections, additions), draw_rates(scenario)
    owner = concatenate([part.owner for part in additions])
    if scenario.coins.law == "one_of":
        coins = draw_one_of(scenario, owner, is_shared=group is not None or _owners(additions) is not None)
    else:
        coins = share_coins(draw_coins(scenario, len(examples), rates), group)
    return AuditSet(
        examples=replace(examples, ids=ids),
        kind=np.repeat(np.array([injection.name for injection in scenario.injections], dtype=np.str_), sizes),
        role=np.repeat(np.array([injection.role for injection in scenario.injections], dtype=np.str_), sizes),
        owner=owner,
        copies=concatenate([part.copies for part in additions]),
        is_in=coins | _is_certain(scenario, additions),
        # A start in round 1 is no window: the initial model is observed as if all examples were active.
        start=per_injection([0 if part.start in (None, 1) else part.start for part in additions]),
        stop=per_injection([FOREVER if part.stop is None else part.stop for part in additions]),
        injection=per_injection(range(len(additions))),
        client_in=_client_coins(scenario),
        copy_owner=_owners(additions),
        not_uniform=tuple(
            injection.name for injection in scenario.injections if not injection_declaration(injection).uniform_secrets
        ),
        coin_row=None if scenario.twins == 1 else np.arange(scenario.runs) % (scenario.runs // scenario.twins),
        coin_group=group,
        coin_law=scenario.coins.as_law,
        inclusion_rates=rates,
        aims_at=positions_aimed_at(scenario.injections, additions),
    )


def _owners(additions: Sequence[InjectionPlan]) -> NDArray[np.int32] | None:
    """The client that trains on each copy, in audit order; None where that is always the owner."""
    if all(part.owners is None for part in additions):
        return None
    return np.concatenate([owners_of_copies(part) for part in additions])


def _client_coins(scenario: Scenario) -> BoolArray | None:
    """(R, N) which clients are in which run; None if all are in all runs. A client that is not listed is always in."""
    choice = scenario.leave_out.clients
    if choice == "all":
        left_out_clients = np.arange(scenario.clients)
    elif isinstance(choice, int):
        left_out_clients = draw(np.arange(scenario.clients), choice, stream(scenario.seed, "clients left out"))
    else:
        left_out_clients = np.array(sorted(choice), dtype=np.int64)
    if not len(left_out_clients):
        return None
    client_coins = np.ones((scenario.runs, scenario.clients), dtype=bool)
    client_coins[:, left_out_clients] = draw_client_coins(scenario, len(left_out_clients))
    return client_coins


def _copy_positions(additions: Sequence[InjectionPlan], extras: Sequence[Examples]) -> IntArray:
    """Copy by copy, in audit order, the position in all extra rows together, -1 for the example itself."""
    parts, start = [np.empty(0, dtype=np.int64)], 0
    for part, extra in zip(additions, extras, strict=True):
        position = np.full(int(part.copies.sum()), -1) if part.copy_index is None else part.copy_index
        assert len(position) == part.copies.sum(), "one slot for each copy"
        parts.append(np.where(position >= 0, position + start, -1))
        start += len(extra)
    return np.concatenate(parts)


def _number_rows(parts: Sequence[Examples], after: int) -> list[Examples]:
    """`parts` with unique negative ids, from -1 - `after` down."""
    numbered_parts = []
    for part in parts:
        numbered_parts.append(replace(part, ids=-1 - after - np.arange(len(part))))
        after += len(part)
    return numbered_parts


def _replacements(additions: Sequence[InjectionPlan], start: int) -> IntArray:
    """Copy by copy, in audit order, the position in all extra rows of its own replacement row; -1 where it has none."""
    parts = [np.empty(0, dtype=np.int64)]
    for part in additions:
        if part.replacements is None:
            parts.append(np.full(int(part.copies.sum()), -1))
            continue
        assert len(part.replacements) == len(part.examples), "one replacement row for each example"
        parts.append(start + np.repeat(np.arange(len(part.replacements)), part.copies))
        start += len(part.replacements)
    return np.concatenate(parts)


def _is_unmasked(additions: Sequence[InjectionPlan]) -> BoolArray:
    """(copies in all,) whether no coin masks a copy, which are the last ones of each example."""
    return np.concatenate([np.zeros(0, dtype=bool), *(~masked_copies(part) for part in additions)])


def _trained_rows(plan: _Plan, audit_start: int, extra_start: int) -> IntArray:
    """(copies in all,) rows of the store that stand for examples that are in."""
    return np.where(plan.copy_index >= 0, extra_start + plan.copy_index, audit_start + plan.audit.subject)


def _reserved_class(injection: Injection) -> int:
    """The class that the rows of an injection are taken from; -1 for any."""
    label = injection_declaration(injection).reserved_class
    return -1 if label is None else label
