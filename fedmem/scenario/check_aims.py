"""Checks of injections that are made against the examples of another, and of those with a trigger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedmem.contracts.data import FeatureShift
from fedmem.contracts.estimator import Estimator, estimator_declaration
from fedmem.contracts.families import kind_of
from fedmem.contracts.injection import Injection, TriggeredInjection, injection_declaration
from fedmem.contracts.probe import Probe, probe_declaration
from fedmem.errors import Problem


def _aims_at_earlier(injections: Sequence[Injection]) -> Iterator[Problem]:
    """An aimed injection names one that comes before it."""
    for position, injection in enumerate(injections):
        name = injection_declaration(injection).aims_at
        earlier = [other.name for other in injections[:position]]
        if name is not None and name not in earlier:
            names = " or ".join(dict.fromkeys(earlier))
            choice = f"use {names}" if earlier else "list the injection of its targets before it"
            yield Problem(
                path=f"injections[{position}].aims_at", message=f"no earlier injection is called {name!r}; {choice}"
            )


def _aims_read(estimators: Sequence[Estimator], injections: Sequence[Injection]) -> Iterator[Problem]:
    """Estimators that compare runs by the inclusion of such examples need some."""
    if any(injection_declaration(injection).aims_at is not None for injection in injections):
        return
    for position, estimator in enumerate(estimators):
        if estimator_declaration(estimator).needs_aims:
            kind = kind_of(estimator)
            yield Problem(
                path=f"estimators[{position}]",
                message=f"{kind} compares runs with and without poison, but no injection aims at another; add "
                f"{{kind: privacy_poison, aims_at: typical}} after typical, or leave {kind} out",
            )


def _aims_unshifted(injections: Sequence[Injection], partition: object) -> Iterator[Problem]:
    """An attacker would see other pixels than those of its target, or of its trigger."""
    for position, injection in enumerate(injections if isinstance(partition, FeatureShift) else ()):
        aims = injection_declaration(injection).aims_at is not None
        if aims or isinstance(injection, TriggeredInjection):
            yield Problem(
                path=f"injections[{position}]",
                message=f"{injection.name} has {'the inputs of its targets' if aims else 'one trigger'}, but with this "
                "partition each client sees images in its own way; use another partition",
            )


def _triggers_read(probes: Sequence[Probe], injections: Sequence[Injection]) -> Iterator[Problem]:
    """Probes of backdoors need one."""
    if any(isinstance(injection, TriggeredInjection) for injection in injections):
        return
    for position, probe in enumerate(probes):
        if probe_declaration(probe).needs_triggers:
            kind = kind_of(probe)
            yield Problem(
                path=f"probes[{position}]",
                message=f"{kind} reads rows with a trigger, but no injection has one; add {{kind: backdoor}} to "
                f"injections, or leave {kind} out",
            )
