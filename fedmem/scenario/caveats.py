"""Caveats for a reader of the numbers of a scenario that is legal and whose runs are sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts import families
from fedmem.contracts.client import PrivateAlgorithm
from fedmem.contracts.data import partition_declaration
from fedmem.contracts.events import count as count_with_noun
from fedmem.errors import FedmemError
from fedmem.scenario import catalogue
from fedmem.wording import client_text

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario


def caveats(
    scenario: Scenario,
    foreign_rows: Mapping[str, int] | None = None,
    counts: Mapping[str, int] | None = None,
    of_injections: Sequence[str] = (),
) -> list[str]:
    """Warnings about a scenario, one sentence or two each; empty where there is nothing to warn of.

    `foreign_rows` are those of its federation: with a partition by owner, real rows of other owners by injection.
    `counts` are its rows of each purpose, and `of_injections` the warnings of its injections about their plans.

    >>> from fedmem.scenario.loading import parse_scenario
    >>> text = "{rounds: 1, clients: 14, dataset: {kind: digits}, model: {kind: mlp}, probes: [{kind: utility}]}"
    >>> [len(caveats(parse_scenario(text), foreign)) for foreign in ({}, {"rare_subgroup": 3})]
    [0, 1]
    """
    return [
        *_warnings_of_no_measurement(bool(scenario.estimators), bool(scenario.probes), bool(scenario.injections)),
        *_signals_without_rows(scenario),
        *_foreign_rows(foreign_rows or {}, scenario.central),
        *_large_population(counts or {}),
        *of_injections,
    ]


def _signals_without_rows(scenario: Scenario) -> Iterator[str]:
    """Where the coins of examples depend on each other, signals are stored alone."""
    if scenario.signals and not scenario.coins.as_law.compares_sides:
        number = "none" if scenario.coins.law == "one_of" else "more"
        yield (
            f"signals are stored, but have no rows in tables: with random inclusion by {scenario.coins.law}, runs with "
            f"an example also train on {number} of the others"
        )


def caveats_with_data(scenario: Scenario, federation: Federation) -> list[str]:
    """The same of a scenario whose federation is built, with what only its data can tell."""
    of_clients = _few_rows(federation) if scenario.central is None else ()
    of_data = caveats(scenario, federation.foreign_rows, federation.counts, federation.warnings)
    of_phase = [*_phase(scenario), *_unread(scenario, federation)]
    return [*of_phase, *_not_covered(scenario, federation.learnt), *of_data, *of_clients]


def _phase(scenario: Scenario) -> Iterator[str]:
    """Numbers of a phase include what earlier ones left."""
    if scenario.after is None or scenario.previous is None:
        return
    forget = scenario.after.forget
    gone = [*forget.kinds, *(client_text(client, ()) for client in forget.clients)]
    text = f"{scenario.after.title} starts from the final models of {scenario.previous.id}"
    if gone:
        text += (
            f" and does not train on {', '.join(gone)} any more. Their memorisation is what is left of earlier training"
        )
    yield text + ". Random inclusion is that of the first training."


def _unread(scenario: Scenario, federation: Federation) -> Iterator[str]:
    """The summary has the examples whose owner took part in an observed round, so that both levels show the same."""
    owned = int(np.isin(federation.audit.owner, federation.absent_clients).sum())
    if owned and "local" in scenario.observe.levels and scenario.roster != "per_run":
        names = ", ".join(client_text(client, ()) for client in federation.absent_clients)
        yield (
            f"the summary leaves out {count_with_noun(owned, 'example')} of {names}: there is no model of an owner "
            "that takes no part. Rows of single rounds at the aggregate have them. For a summary with them write "
            "observe: {levels: [global]} in the phase"
        )


NOT_COVERED = "not covered by the guarantee: "
"""The beginning of a warning about a privacy guarantee."""


def _not_covered(scenario: Scenario, learnt: Sequence[str]) -> Iterator[str]:
    """The facts that the data learnt from training rows, where a guarantee is stated."""
    from fedmem.privacy.spending import of_scenario

    if learnt and (of_scenario(scenario) or isinstance(scenario.client, PrivateAlgorithm)):
        names = " and ".join(filter(None, (", ".join(learnt[:-1]), learnt[-1])))
        yield f"{NOT_COVERED}{names} learnt from training rows"


def _few_rows(federation: Federation) -> Iterator[str]:
    """Clients that train on a single row of their own, or on none."""
    few = [client for client, rows in enumerate(federation.base) if len(rows) <= 1]
    if few:
        names = [client_text(client, federation.client_names) for client in few[:5]]
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        yield (
            f"{', '.join(names)}{more} {'has' if len(few) == 1 else 'have'} at most one row to train on besides audit "
            "examples, so a model of such a client fits that row alone. Merge small clients, or leave them out."
        )


def _large_population(counts: Mapping[str, int]) -> Iterator[str]:
    """Reference data that take many of the rows which clients would train on."""
    taken, rows = counts.get("population", 0), counts.get("total", 0) - counts.get("test", 0)
    if 3 * taken > rows:
        yield (
            f"population sets {taken} of {rows} training rows aside ({100 * taken / rows:.0f} %) as reference data, "
            "which no client trains on; lower population to leave clients more rows."
        )


def _foreign_rows(counts: Mapping[str, int], central: str | None) -> Iterator[str]:
    """Rows of other owners are outliers for the client that holds them."""
    # Where one model is trained on the rows of all owners, a row of any owner is an ordinary one.
    if central is not None:
        return
    for injection, count in counts.items():
        yield (
            f"injection {injection} puts {count} real rows of other owners on clients that have too few such rows of "
            "their own. What is measured of them at the owning client is that of an outlier there."
        )


def _warnings_of_no_measurement(has_estimators: bool, has_probes: bool, has_injections: bool) -> Iterator[str]:
    """Training that nothing measures."""
    if has_estimators or has_probes:
        return
    fix = "estimators, such as estimators: [{kind: memorisation}, {kind: exposure}]"
    if has_injections:
        yield f"nothing is measured: the scenario has audit examples, but neither estimators nor probes; add {fix}"
    else:
        yield (
            "nothing is measured: the scenario has neither estimators nor probes; add probes: [{kind: utility}], or "
            f"injections: [{{kind: random_pattern}}, {{kind: typical}}] and {fix}"
        )


def caveats_of_stored(scenario: Mapping[str, Any]) -> list[str]:
    """Warnings about a stored run without warnings of its own, a mapping with every default written out.

    Such a run is of a version that drew audit rows from all owners. Only a partition of ours is looked at, since a
    class of the user's would have to be imported to tell.
    """
    texts = [
        *_warnings_of_no_measurement(*(bool(scenario.get(name)) for name in ("estimators", "probes", "injections")))
    ]
    partition = scenario.get("partition")
    if not isinstance(partition, Mapping) or ":" in str(partition.get("kind", "")):
        return texts
    try:
        built = catalogue.build("partition", partition)
    except FedmemError:
        return texts  # of another version
    by_owner = any(partition_declaration(part).by_owner for _, part in families.nested_components(built))
    if not by_owner or not scenario.get("injections") or scenario.get("central") is not None:
        return texts
    return [
        *texts,
        f"partition {families.kind_of(built)} gives each client the rows of one owner, but this run is of an older "
        "version. It drew real audit examples, their controls and their replacement rows from all owners. So a row "
        "that is called typical is foreign to its owning client. Its numbers are those of an outlier, and no control "
        "for a client's own rows. Run the scenario again with --force.",
    ]
