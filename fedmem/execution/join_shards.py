"""Join the results of shards, which were trained separately, into those of one bank."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.evidence import Evidence, ReferenceEvidence, SignalEvidence, TrainedBank
from fedmem.contracts.families import sources
from fedmem.contracts.measurement import Level, Measurement
from fedmem.contracts.needs import declared_by
from fedmem.contracts.probe import Probe
from fedmem.contracts.stored_evidence import join_evidence
from fedmem.contracts.validation_of_measures import measurements_of
from fedmem.errors import RunError
from fedmem.guards.guarding import Guard
from fedmem.privacy.secure_aggregation import by_size, with_size

_LEVELS: tuple[Level, ...] = ("local", "sum", "global")


def join(parts: Sequence[TrainedBank], probes: Sequence[Probe], seed: int) -> TrainedBank:
    """The parts of a bank as one, with the summaries of its probes.

    Args:
        parts: At least one part, disjoint, in the order of their runs, each as it was read, without summaries.
        probes: The probes of the scenario, which sum up their own measurements.
        seed: Seed of the scenario, for the summaries.

    Guarantees:

    - all is in one order, by round, level and run, so the result does not depend on how the runs were divided;
    - no value is computed again: the arrays are joined as they were.

    Errors: `RunError` where parts were computed on different devices, and where probes kept arrays of different runs
    under one name.
    """
    first = parts[0]
    assert all((part.executor, part.server) == (first.executor, first.server) for part in parts)
    _require_one_device(parts)
    measured = _order_measurements(parts, sources(probes))
    for probe, source in zip(probes, sources(probes), strict=True):
        # a probe without readings is asked as well, so that one that cannot sum up is no less of a failure
        for size, group in [*by_size([measurement for measurement in measured if measurement.source == source])] or [
            (None, [])
        ]:
            with Guard("probe", probe, "summarise") as guard:
                independent = _by_coin_row(group, first.bank.audit)
                summaries = measurements_of(guard, probe.summarise(independent, seed), declared_by(probe))
            measured += [with_size(measurement, size) for measurement in summaries]
    return TrainedBank(
        bank=replace(
            first.bank,
            evidence=_blocks([part.bank.evidence for part in parts], join_evidence),
            references=_blocks([part.bank.references for part in parts], _references),
            signals=_blocks([part.bank.signals for part in parts], _signals),
            participation=tuple(entry for part in parts for entry in part.bank.participation),
        ),
        measurements=tuple(measured),
        reconstructions=_arrays(parts),
        params=tuple(params for part in parts for params in part.params),
        executor=first.executor,
        server=first.server,
        workers=first.workers,
        device=first.device,
        seconds={name: sum(part.seconds[name] for part in parts) for name in first.seconds},
        failures=first.failures,
        untraced=dict(sorted(pair for part in reversed(parts) for pair in part.untraced.items())),
        pilot=first.pilot,
        card=first.card,
    )


def _require_one_device(parts: Sequence[TrainedBank]) -> None:
    """Errors: `RunError` that names the devices of the parts where they differ, since their numbers then differ too."""
    places = sorted({f"{part.device} ({part.card})" if part.card else part.device for part in parts})
    if len(places) > 1:
        raise RunError(
            f"runs of one scenario were computed on different devices: {', '.join(places)}. Their numbers round in "
            "other ways; run again with --force on one kind of device"
        )


def _by_coin_row(measurements: Sequence[Measurement], audit: AuditSet) -> Sequence[Measurement]:
    """The same with coin rows in place of runs: probes take runs as clusters, and only coin rows are independent."""
    if audit.coin_row is None:
        return measurements
    rows = audit.coin_rows.tolist()
    return [
        measurement if measurement.run is None else replace(measurement, run=rows[measurement.run])
        for measurement in measurements
    ]


def _order_measurements(parts: Sequence[TrainedBank], names: Sequence[str]) -> list[Measurement]:
    """Measurements by round, level, probe and run; those of a run stay in the order in which it was read."""
    measurements = [measurement for part in parts for measurement in part.measurements]
    place = {name: position for position, name in enumerate(names)}
    return sorted(
        measurements,
        key=lambda measurement: (
            measurement.round,
            _LEVELS.index(measurement.level),
            place[measurement.source],
            measurement.run,
        ),
    )


_Block = TypeVar("_Block", Evidence, ReferenceEvidence, SignalEvidence)


def _blocks(parts: Sequence[Sequence[_Block]], merge: Callable[[list[_Block]], _Block]) -> tuple[_Block, ...]:
    """Blocks of one round and level come in the same order in every part; some parts have none, if nobody took part."""
    groups: dict[tuple[int, int, int], list[_Block]] = {}
    for blocks in parts:
        counts: Counter[tuple[int, int]] = Counter()
        for block in blocks:
            place: tuple[int, int] = (block.round, _LEVELS.index(block.level))
            groups.setdefault((*place, counts[place]), []).append(block)
            counts[place] += 1
    return tuple(group[0] if len(group) == 1 else merge(group) for _, group in sorted(groups.items()))


def _references(blocks: Sequence[ReferenceEvidence]) -> ReferenceEvidence:
    """The models of blocks of one round, level and family below each other."""
    assert len({block.family for block in blocks}) == 1
    return replace(
        blocks[0],
        run=np.concatenate([block.run for block in blocks]),
        client=np.concatenate([block.client for block in blocks]),
        less=np.concatenate([block.less for block in blocks]),
        ties=np.concatenate([block.ties for block in blocks]),
        quantiles=np.concatenate([block.quantiles for block in blocks]),
    )


def _signals(blocks: Sequence[SignalEvidence]) -> SignalEvidence:
    """The same of one quantity."""
    assert len({(block.name, block.set) for block in blocks}) == 1
    return replace(
        blocks[0],
        run=np.concatenate([block.run for block in blocks]),
        client=np.concatenate([block.client for block in blocks]),
        values=np.concatenate([block.values for block in blocks]),
    )


def _arrays(parts: Sequence[TrainedBank]) -> dict[str, NDArray[Any]]:
    """The arrays that probes stored, sorted by name, with numbers in names as numbers."""
    arrays: dict[str, NDArray[Any]] = {}
    for part in parts:
        if again := sorted(arrays.keys() & part.reconstructions.keys()):
            raise RunError(
                f"a probe kept arrays of several runs under the name {again[0]!r}; runs are trained "
                "in several shards. Put the number of the run into the name that is given to `keep`"
            )
        arrays |= part.reconstructions
    return dict(sorted(arrays.items(), key=lambda item: _natural(item[0])))


def _natural(name: str) -> list[tuple[str, int]]:
    """Text and number by turns.

    >>> sorted(["round_10/a", "round_9/b"], key=_natural)
    ['round_9/b', 'round_10/a']
    """
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]
