"""Checks of phases: what cannot follow a training, and what cannot be forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.client import ClientAlgorithm, PersonalClient, PrivateAlgorithm
from fedmem.contracts.defence import Defence, defence_declaration
from fedmem.contracts.families import kind_of
from fedmem.contracts.injection import Injection, has_coins, injection_declaration
from fedmem.contracts.sampler import Sampler, sampler_declaration
from fedmem.contracts.strategy import StrategyMaker, strategy_declaration
from fedmem.errors import Problem
from fedmem.wording import choices

if TYPE_CHECKING:
    from fedmem.scenario.normalising import Norm
    from fedmem.scenario.phases import After, Phase
    from fedmem.scenario.removed import Removed
    from fedmem.scenario.speed import Speed


def _phase_noise(
    client: ClientAlgorithm, strategy: StrategyMaker, defences: Sequence[Defence], after: After | None
) -> Iterator[Problem]:
    """A guarantee of a phase alone would leave out what the phases before released."""
    if after is None:
        return
    noisy = [("client", client)] if isinstance(client, PrivateAlgorithm) else []
    parts: list[tuple[str, object]] = [*noisy]
    parts += [("strategy", strategy)] if strategy_declaration(strategy).noisy else []
    parts += [
        (f"defences[{i}]", part)
        for i, part in enumerate(defences)
        if defence_declaration(part).gaussian_deviation is not None
    ]
    for path, part in parts:
        yield Problem(
            path=path,
            message=f"{kind_of(part)} adds noise for a privacy guarantee. That of {after.title} would leave out the "
            "phases before it, which saw the same rows; use a part without noise in phases",
        )


def _phase_state(
    client: ClientAlgorithm, strategy: StrategyMaker, norm: Norm | None, after: After | None
) -> Iterator[Problem]:
    """Only the global model goes on from phase to phase."""
    if after is None:
        return
    why = "and only the global model goes on from phase to phase; use one without, or leave `then` out"
    if isinstance(client, PersonalClient):
        yield Problem(path="client", message=f"{kind_of(client)} keeps layers at each client, {why}")
    if norm is not None and norm.kind == "local":
        yield Problem(path="norm", message=f"local statistics stay at each client, {why}")
    if strategy_declaration(strategy).canary_clients:
        yield Problem(
            path="strategy.canary_clients", message=f"the directions of canary clients belong to one training, {why}"
        )


def _phase_cohorts(sampler: Sampler, roster: str, speed: Speed, after: After | None) -> Iterator[Problem]:
    """Pilots and engines that a phase cannot have."""
    if after is None:
        return
    if roster == "pilot" and sampler_declaration(sampler).needs:
        yield Problem(
            path="roster",
            message=f"a pilot has no models that {after.title} could start from; write roster: shared and a sampler "
            "that draws blindly, or roster: per_run",
        )
    if speed.engine != "lockstep":
        yield Problem(
            path="speed.engine", message="phases are trained by the engine lockstep; write speed: {engine: lockstep}"
        )


def _forgotten(
    injections: Sequence[Injection], clients: int, central: str | None, runs: int, exclusion: str, after: After | None
) -> Iterator[Problem]:
    """Kinds and clients that are forgotten must exist, have replacement rows, and leave somebody to train."""
    if after is None:
        return
    names = {injection.name: injection for injection in injections}
    for position, kind in enumerate(after.forget.kinds):
        path = f"after.forget.kinds[{position}]"
        if kind not in names:
            yield Problem(path=path, message=f"no injection is called {kind!r}{choices(kind, names)}")
        elif injection_declaration(names[kind]).unmasked:
            yield Problem(
                path=path,
                message=f"{kind} has copies that are trained on in every run, so that it cannot be forgotten; write "
                "unmasked: 0 in the injection, or forget another kind",
            )
        elif exclusion == "replace" and not has_coins(names[kind], runs):
            yield Problem(
                path=path,
                message=f"examples of {kind} are in in every run, so that there are no replacement rows for their "
                "places; write exclusion: remove, or forget another kind",
            )
    gone = after.forget.clients
    for position, client in enumerate(gone):
        if client >= clients:
            yield Problem(
                path=f"after.forget.clients[{position}]",
                message=f"client {client} does not exist, there are {clients}; use 0 to {clients - 1}",
            )
    if gone and central is not None:
        yield Problem(
            path="after.forget.clients", message="a central training has one client; forget kinds instead of clients"
        )
    if clients and len(set(gone)) >= clients:
        yield Problem(path="after.forget.clients", message="no client is left to train; forget fewer")


def _removed_places(removed: Removed | None, exclusion: str) -> Iterator[Problem]:
    """Replacement rows exist where examples that are out are replaced."""
    if removed is not None and removed.exclusion == "replace" and exclusion == "remove":
        yield Problem(
            path="removed.exclusion",
            message="is replace, but with exclusion: remove there are no replacement rows. Write remove, or leave it "
            "out; places then stay empty",
        )


def _check_unfolding(then: Sequence[Phase], after: After | None) -> Iterator[Problem]:
    """The scenario of a phase has no further phases of its own."""
    if then and after is not None:
        yield Problem(
            path="then", message="a phase that was written by fedmem is followed by none; add it to the first scenario"
        )
