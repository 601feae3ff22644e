"""Checks of examples that are in or out together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedmem.contracts.coin_groups import explain_groups, not_counting_groups
from fedmem.contracts.estimator import Estimator
from fedmem.contracts.injection import Injection, has_coins, injection_declaration
from fedmem.contracts.probe import Probe
from fedmem.errors import Problem


def _groups_are_drawn(injections: Sequence[Injection], runs: int) -> Iterator[Problem]:
    """Examples without random inclusion are in no group."""
    for position, injection in enumerate(injections):
        included = injection_declaration(injection).included
        if included != "each" and not has_coins(injection, runs):
            yield Problem(
                path=f"injections[{position}].included",
                message=f"{included} draws for several examples at once, but examples of {injection.name} are in in "
                "every run; leave it out",
            )


def _each_drawn_alone(
    estimators: Sequence[Estimator], probes: Sequence[Probe], injections: Sequence[Injection]
) -> Iterator[Problem]:
    """Components that take each example as drawn alone."""
    names = [one.name for one in injections if injection_declaration(one).included != "each"]
    for field, components in (("probes", probes), ("estimators", estimators)):
        for position, component in enumerate(components if names else ()):
            for path, part in not_counting_groups(component, f"{field}[{position}]"):
                yield Problem(path=path, message=explain_groups(part, ", ".join(names)))
