"""What a reader of the numbers of a scenario must know, although the scenario is legal and its runs are sound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fedmem.contracts import families
from fedmem.contracts.data import Partition, partition_declaration
from fedmem.errors import FedmemError
from fedmem.scenario import catalogue

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


def caveats(scenario: Scenario) -> list[str]:
    """Warnings about a scenario, one sentence or two each; empty where there is nothing to warn of.

    >>> from fedmem.scenario.loading import parse_scenario
    >>> text = "{rounds: 1, clients: 14, dataset: {kind: digits}, model: {kind: mlp}, partition: {kind: %s}, %s}"
    >>> typical_rows = "injections: [{kind: typical, per_client: 1}], estimators: [{kind: memorisation}]"
    >>> [len(caveats(parse_scenario(text % (kind, typical_rows)))) for kind in ("natural", "iid")]
    [1, 0]
    >>> [caveat.partition(":")[0] for caveat in caveats(parse_scenario(text % ("natural", "injections: []")))]
    ['nothing is measured']
    """
    return [
        *_warnings_of_no_measurement(bool(scenario.estimators), bool(scenario.probes), bool(scenario.injections)),
        *_foreign_rows(scenario.partition, bool(scenario.injections), scenario.central),
    ]


def caveats_of_stored(scenario: Mapping[str, Any]) -> list[str]:
    """The same of a stored scenario, a mapping with every default written out.

    Only a partition of ours is looked at, since a class of the user's would have to be imported to tell.
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
    return [*texts, *_foreign_rows(built, bool(scenario.get("injections")), scenario.get("central"))]


def _warnings_of_no_measurement(has_estimators: bool, has_probes: bool, has_injections: bool) -> Iterator[str]:
    """Training that nothing measures."""
    if has_estimators or has_probes:
        return
    fix = "estimators, such as estimators: [{kind: memorisation}, {kind: membership}]"
    if has_injections:
        yield f"nothing is measured: the scenario has audit examples, but neither estimators nor probes; add {fix}"
    else:
        yield (
            "nothing is measured: the scenario has neither estimators nor probes; add probes: [{kind: utility}], or "
            f"injections: [{{kind: random_pattern}}, {{kind: typical}}] and {fix}"
        )


def _foreign_rows(partition: Partition, audited: bool, central: str | None) -> Iterator[str]:
    """Rows of the reserve are drawn from all owners: they are no ordinary rows of a client that holds one owner's."""
    # where one model is trained on the rows of all owners, a row of any owner is an ordinary one
    if (
        audited
        and central is None
        and any(partition_declaration(part).by_owner for _, part in families.nested_components(partition))
    ):
        yield (
            f"partition {families.kind_of(partition)} gives each client the rows of one owner, but real rows among "
            "audit examples, their controls and their replacement rows are drawn from all owners. So a row that is "
            "called typical is foreign to its owning client: its numbers are those of an outlier, and no control for "
            "a client's own rows."
        )
