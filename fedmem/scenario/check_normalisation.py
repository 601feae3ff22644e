"""Checks of the policy for layers with running statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.client import ClientAlgorithm, PrivateAlgorithm
from fedmem.contracts.defence import Defence
from fedmem.contracts.estimator import Estimator
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.needs import needs_of
from fedmem.contracts.probe import Probe
from fedmem.contracts.strategy import StrategyMaker, strategy_declaration
from fedmem.errors import Problem
from fedmem.scenario.check_measuring import _compares_clients
from fedmem.scenario.normalising import Norm

if TYPE_CHECKING:
    from fedmem.scenario.observing import Observe
    from fedmem.scenario.speed import Speed

_INSTEAD = "use norm: {kind: frozen} or {kind: to_group}"


def _normalised_privately(
    norm: Norm | None, client: ClientAlgorithm, strategy: StrategyMaker, defences: Sequence[Defence]
) -> Iterator[Problem]:
    """Statistics of a batch are in no gradient of an example, and no noise covers them."""
    if norm is None or not norm.is_updated:
        return
    if isinstance(client, PrivateAlgorithm):
        yield Problem(
            path="norm.kind",
            message=f"{norm.kind} normalises by the batch, so that the gradient of an example depends on the others. "
            f"Client {kind_of(client)} clips the gradients of single examples; {_INSTEAD}",
        )
    if strategy_declaration(strategy).noisy:
        why = (
            "statistics of a client's data are no gradient that a clip bounds"
            if norm.kind == "averaged"
            else "its noise would also change the statistics that new clients begin with"
        )
        yield Problem(
            path="norm.kind",
            message=f"{norm.kind} cannot be combined with strategy {kind_of(strategy)}, which guarantees privacy: "
            f"{why}; {_INSTEAD}",
        )
    if norm.kind == "averaged" and defences:
        yield Problem(
            path="norm.kind",
            message=f"averaged sends the running statistics of a client's data, and defence {kind_of(defences[0])} is "
            f"made for updates of parameters. The statistics would leave undefended; {_INSTEAD}, or "
            "{kind: local}, which sends none",
        )


def _normalised_in_batches(norm: Norm | None, speed: Speed, probes: Sequence[Probe]) -> Iterator[Problem]:
    """Padding would change statistics, and an attacker does not know those of a batch."""
    if norm is None or not norm.is_updated:
        return
    if speed.executor == "stacked":
        yield Problem(
            path="speed.executor",
            message=f"norm {norm.kind} normalises by the batch, and the batches of a stack are padded; use executor: "
            f"one_by_one or auto, or {_INSTEAD}",
        )
    for position, probe in enumerate(probes):
        if any(needs_of(part).reads_gradients for _, part in nested_components(probe, "")):
            yield Problem(
                path=f"probes[{position}]",
                message=f"{kind_of(probe)} reads an update as the gradient of its examples. With norm {norm.kind}, "
                f"each of them is normalised by the others of its batch; {_INSTEAD}, or leave the probe out",
            )


def _normalised_locally(
    norm: Norm | None, observe: Observe, estimators: Sequence[Estimator], central: str | None
) -> Iterator[Problem]:
    """No aggregate is whole without the layers of a client."""
    if norm is None or norm.kind != "local":
        return
    if "sum" in observe.levels:
        yield Problem(
            path=f"observe.levels[{observe.levels.index('sum')}]",
            message="a sum of models without the layers that norm local keeps at clients predicts nothing; choose "
            "from: local, global, or use norm: {kind: averaged}",
        )
    for position, estimator in enumerate(estimators):
        if _compares_clients(estimator):
            yield Problem(
                path=f"estimators[{position}]",
                message=f"{kind_of(estimator)} compares one aggregate for all, but with norm local each owning client "
                "reads its own; use norm: {kind: averaged}, or leave it out",
            )
    if central is not None:
        yield Problem(
            path="norm.kind",
            message="local keeps layers apart at each client, and central training has one client that holds "
            "everything; use averaged",
        )
