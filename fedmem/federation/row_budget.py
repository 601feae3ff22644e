"""The number of rows for each purpose, and what to change where there are too few."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset
from fedmem.contracts.injection import ClassInjection, Injection, injection_declaration
from fedmem.contracts.validation import count_of
from fedmem.errors import Problem
from fedmem.federation.own_rows import splits_by_owner
from fedmem.guards.guarding import Guard
from fedmem.seeding import stream

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


@dataclass(frozen=True, kw_only=True)
class RowBudget:
    """The number of rows for each purpose; `classes` counts those of each class that injections need."""

    rows: dict[str, int]
    classes: dict[int, int]
    reserved_classes: frozenset[int]

    def with_reserves(self, audit: int, replacements: int) -> dict[str, int]:
        """The rows with these numbers for audit examples and replacement rows; base rows are what is left."""
        unneeded = self.rows["audit"] + self.rows["replacements"] - audit - replacements
        base = self.rows["base"] + unneeded
        return self.rows | {"audit": audit, "replacements": replacements, "base": base}


def make_row_budget(scenario: Scenario, data: Dataset) -> RowBudget:
    """The rows that each purpose gets; they add up to total. See `federation.build.budget`."""
    rows = len(data.train)
    classes: dict[int, int] = {}
    for injection in scenario.injections:
        if isinstance(injection, ClassInjection):
            rows_needed = classes.get(injection.reserved_class, 0) + reserve_rows(injection, scenario.clients, rows)
            classes[injection.reserved_class] = rows_needed
    exclusive_classes = frozenset(
        injection.reserved_class
        for injection in scenario.injections
        if isinstance(injection, ClassInjection) and injection.exclusive
    )
    audit = sum(reserve_rows(injection, scenario.clients, rows) for injection in scenario.injections)
    replacements = 0
    if scenario.exclusion == "replace":
        # All coins of a run may fall on out.
        replacements = sum(_replacement_rows(injection, scenario.clients, rows) for injection in scenario.injections)
    available = _rows_by_class(scenario, data) if exclusive_classes else {}
    unused = sum(max(0, available.get(label, 0) - classes[label]) for label in exclusive_classes)
    counts = {
        "test": len(data.test),
        "population": scenario.population,
        "audit": audit,
        "replacements": replacements,
        "reserved_rows": unused,
        "base": rows - scenario.population - audit - replacements - unused,
        "total": rows + len(data.test),
    }
    return RowBudget(rows=counts, classes=classes, reserved_classes=exclusive_classes)


def reserve_rows(injection: Injection, clients: int, rows: int) -> int:
    """The real rows that an injection takes."""
    with Guard("injection", injection, "reserve_rows") as guard:
        return count_of(guard, injection.reserve_rows(clients, rows))


def total_copies(injection: Injection, clients: int, rows: int) -> int:
    """The copies of its examples that an injection announces."""
    with Guard("injection", injection, "total_copies") as guard:
        return count_of(guard, injection.total_copies(clients, rows))


def _replacement_rows(injection: Injection, clients: int, rows: int) -> int:
    """Replacement rows that an injection takes from the reserve; none where its plan or its clients have their own."""
    declared = injection_declaration(injection)
    return 0 if declared.own_replacements or declared.takes_held else total_copies(injection, clients, rows)


def _rows_by_class(scenario: Scenario, data: Dataset) -> dict[int, int]:
    """The number of training rows of each class outside the population."""
    rows = np.arange(len(data.train))
    if scenario.population <= len(rows):
        rows = np.setdiff1d(rows, population_of(scenario, data), assume_unique=True)
    labels, counts = np.unique(data.train.labels[rows], return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


def population_of(scenario: Scenario, data: Dataset) -> IntArray:
    """The training rows that are set aside before all others, sorted."""
    return draw(np.arange(len(data.train)), scenario.population, stream(scenario.seed, "population"))


def test_rows_of(scenario: Scenario, data: Dataset) -> IntArray | None:
    """The rows of the test set that models are evaluated on, sorted; None for all."""
    count = scenario.observe.test.rows
    if count is None or count == len(data.test):
        return None
    return draw(np.arange(len(data.test)), count, stream(scenario.seed, "test rows"))


def _too_few_test_rows(scenario: Scenario, data: Dataset) -> list[Problem]:
    """A problem where models are to be evaluated on more test rows than there are."""
    count, available = scenario.observe.test.rows, len(data.test)
    if count is None or count <= available:
        return []
    remedy = f"use at most {available}, or leave it out" if available else "leave it out"
    message = f"the test set has {available} rows, so {count} cannot be drawn; {remedy}"
    return [Problem(path="observe.test.rows", message=message)]


def draw(rows: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """`count` of these rows, sorted."""
    return np.sort(rng.choice(rows, size=count, replace=False))


def shortages(scenario: Scenario, data: Dataset, budget: RowBudget) -> list[Problem]:
    """Problems if a class has too few rows for the injections, or a client would get no base row."""
    if splits_by_owner(scenario.partition):
        # Whether each client has enough is counted with its own rows, by `own_rows`.
        budget = replace(budget, rows=budget.with_reserves(0, 0))
    return [
        *_class_shortages(scenario, data, budget),
        *_row_shortages(scenario, budget.rows),
        *_too_few_test_rows(scenario, data),
    ]


def _class_shortages(scenario: Scenario, data: Dataset, budget: RowBudget) -> list[Problem]:
    """A problem for every class with fewer rows than the injections need."""
    available = _rows_by_class(scenario, data) if budget.classes else {}
    problems = []
    for label, rows_needed in budget.classes.items():
        # The last to ask is blamed; a class that does not exist is left to the injection, which knows its field.
        if label < data.num_classes and rows_needed > available.get(label, 0):
            asking = [
                i
                for i, injection in enumerate(scenario.injections)
                if isinstance(injection, ClassInjection) and injection.reserved_class == label
            ]
            message = (
                f"{rows_needed} rows of class {label} are wanted, but outside the population there are "
                f"{available.get(label, 0)}; lower per_client or clients of this injection, or population"
            )
            problems.append(Problem(path=f"injections[{asking[-1]}]", message=message))
    return problems


def _lower_population(scenario: Scenario, train: int, max_population: int) -> str:
    """The largest possible population, and one that leaves clients most of the training rows."""
    default_value = type(scenario).model_fields["population"].default
    is_default = scenario.population == default_value and scenario.locate("population") == scenario.locate("")
    value = min(max_population, train // 5)
    default = f", {scenario.population} by default," if is_default else ""
    better = f", or better write `population: {value}`" if 0 < value < max_population else ""
    return f"lower population{default} to at most {max_population}{better}"


def _row_shortages(scenario: Scenario, counts: dict[str, int]) -> list[Problem]:
    """A problem if a client would get no base row."""
    if counts["base"] >= scenario.clients:
        return []
    train = counts["total"] - counts["test"] - counts["reserved_rows"]
    reserved = counts["audit"] + counts["replacements"]
    rows_needed = counts["population"] + reserved + scenario.clients
    unused_text = f" and {counts['reserved_rows']} of reserved classes" if counts["reserved_rows"] else ""
    message = (
        f"{counts['total']} rows minus {counts['test']} for test{unused_text} leave {train}, but {rows_needed} are "
        f"needed. These are: population {counts['population']}, audit {counts['audit']}, "
        f"replacement rows {counts['replacements']} and one for each of {scenario.clients} clients; "
    )
    max_population = train - reserved - scenario.clients
    room = train - counts["population"] - scenario.clients
    fewer = _max_clients(scenario, train, counts["total"] - counts["test"])
    # Lever -> how many rows it takes, and what it would have to become; only those that are enough on their own.
    levers: dict[str, tuple[int, str]] = {}
    if max_population >= 0 and counts["population"]:
        levers["population"] = (counts["population"], _lower_population(scenario, train, max_population))
    if reserved and room >= scenario.clients * len(scenario.injections):
        remedy = (
            f"lower per_client, copies or rate of the injections until audit and replacement rows need at most {room}"
        )
        levers["injections"] = (reserved, remedy)
    if fewer:
        levers["clients"] = (scenario.clients, f"lower clients to at most {fewer}")
    remedies = [remedy for _, remedy in levers.values()]
    if counts["replacements"] and counts["base"] + counts["replacements"] >= scenario.clients:
        remedies.append("write `exclusion: remove`, which needs no replacement rows")
    # A default value is blamed only where the file states none of the levers.
    stated_levers = {lever for lever in levers if scenario.locate(lever) != scenario.locate("")}
    path = max(stated_levers or levers or ["dataset"], key=lambda lever: levers.get(lever, (0, ""))[0])
    return [Problem(path=path, message=message + (", or ".join(remedies) or "use more data"))]


def _max_clients(scenario: Scenario, train: int, rows: int) -> int:
    """The largest number of clients for which these rows are enough, all else equal; 0 if there is none."""

    def rows_needed(clients: int) -> int:
        copies = scenario.exclusion == "replace"
        reserved = sum(
            reserve_rows(injection, clients, rows) + copies * _replacement_rows(injection, clients, rows)
            for injection in scenario.injections
        )
        return scenario.population + reserved + clients

    # needs grow with the clients, so halving finds the last number that fits
    fits, fails = 0, scenario.clients
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if rows_needed(middle) <= train else (fits, middle)
    return fits
