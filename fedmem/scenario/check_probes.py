"""Checks of what probes read of a scenario: replacement rows, aggregates without noise, and injections by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedmem.contracts.estimator import Estimator
from fedmem.contracts.families import kind_of
from fedmem.contracts.injection import Injection
from fedmem.contracts.needs import needs_of
from fedmem.contracts.probe import Probe, probe_declaration
from fedmem.contracts.strategy import StrategyMaker
from fedmem.errors import Problem
from fedmem.privacy.mechanisms import adds_noise
from fedmem.scenario.observing import Observe
from fedmem.wording import choices


def _replacements_read(probes: Sequence[Probe], exclusion: str, injections: Sequence[Injection]) -> Iterator[Problem]:
    """Probes that read the places of out examples need audit examples, and replacement rows there."""
    for position, probe in enumerate(probes):
        if not probe_declaration(probe).needs_replacements:
            continue
        if not injections:
            yield Problem(
                path=f"probes[{position}]",
                message=f"{kind_of(probe)} guesses audit examples, but there are none. Write an injection, such as "
                "injections: [{kind: typical}], or leave this probe out",
            )
        elif exclusion == "remove":
            yield Problem(
                path=f"probes[{position}]",
                message=f"{kind_of(probe)} compares with examples that are out, whose places replacement rows take, "
                "but with exclusion: remove there are none. Write exclusion: replace, or leave this probe out",
            )


def _noise_unknown(strategy: StrategyMaker, probes: Sequence[Probe], observe: Observe) -> Iterator[Problem]:
    """Probes that do not know the noise of the server cannot recompute its aggregates."""
    for position, probe in enumerate(probes if adds_noise(strategy) and "global" in observe.levels else ()):
        if probe_declaration(probe).draws_noise_again:
            yield Problem(
                path=f"probes[{position}].levels",
                message=f"{kind_of(probe)} does not know the noise that strategy {kind_of(strategy)} adds, and an "
                "aggregate is recomputed with the same noise. Write levels: [local], or use a strategy without noise, "
                "such as fedavg",
            )


def _injections_named(
    estimators: Sequence[Estimator], probes: Sequence[Probe], injections: Sequence[Injection]
) -> Iterator[Problem]:
    """Names of injections that there are not would be passed over in silence."""
    names = list(dict.fromkeys(injection.name for injection in injections))
    parts: list[tuple[str, object]] = [(f"estimators[{position}]", part) for position, part in enumerate(estimators)]
    parts += [(f"probes[{position}]", part) for position, part in enumerate(probes)]
    for place, part in parts:
        for field in needs_of(part).names_injections:
            value = getattr(part, field)
            several = not isinstance(value, str)
            for position, name in enumerate(value if several else (value,) * bool(value)):
                if name not in names:
                    yield Problem(
                        path=f"{place}.{field}" + f"[{position}]" * several,
                        message=f"no injection is called {name!r}{choices(name, names)}, or leave {field} out",
                    )
