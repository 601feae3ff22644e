"""Which of many scenarios are trained together: those with the same model and clients, as many as fill a stack."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.client import client_declaration

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario

TOGETHER = 64
"""Runs of several scenarios that advance together, at most: stacks are full by then, and a kill undoes little."""

_NO_DATA = frozenset(
    (
        *(
            "name",
            "sampler",
            "client",
            "defences",
            "strategy",
            "roster",
            "cohort_by",
            "observe",
            "probes",
            "estimators",
        ),
        *("bootstrap", "tolerate", "save", "speed", "repeat"),
    )
)
"""Fields of a scenario that its federation does not depend on."""


def divide_into_banks(
    scenarios: Mapping[int, Scenario], workers: int, gpus: int = 1
) -> tuple[list[tuple[int, ...]], list[int]]:
    """Which scenarios are trained together, by their places, and which have to be run apart.

    There are as few banks as keep all workers, or all GPUs, at work. A scenario is alone in a bank if it cannot be
    stacked, has defences or noisy steps, or computes with several threads. With several threads, sums may be taken in
    another order. A scenario is apart if it has processes of its own.
    """
    from fedmem.contracts.client import PrivateAlgorithm
    from fedmem.execution.auto import is_stacked
    from fedmem.execution.devices import wants_gpu

    unpooled: list[int] = []
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, scenario in scenarios.items():
        speed = scenario.speed
        if speed.engine != "lockstep":
            unpooled.append(i)
            continue
        # what defences and noisy steps draw comes from the streams of one seed, and belongs to one round
        draws = scenario.defences or isinstance(scenario.client, PrivateAlgorithm)
        alone = i if speed.threads > 1 or not is_stacked(scenario) or draws else None
        texts = _text(scenario, "model"), _text(scenario, "client"), str(speed)
        groups.setdefault((wants_gpu(scenario), *texts, alone), []).append(i)
    max_width: dict[object, int] = {}
    for on_gpu, count in ((False, workers), (True, gpus)):
        total = sum(width_of(scenarios[i]) for key, members in groups.items() if key[0] == on_gpu for i in members)
        max_width[on_gpu] = min(TOGETHER, -(-total // max(1, count)))
    banks: list[tuple[int, ...]] = []
    for key, members in groups.items():
        # those with the same data next to each other, in the order in which they are first met
        order = {key: place for place, key in reversed(list(enumerate(data_of(scenarios[i]) for i in members)))}
        members.sort(key=lambda i: order[data_of(scenarios[i])])
        banks += partition(members, [width_of(scenarios[i]) for i in members], max_width[key[0]])
    return banks, unpooled


def data_of(scenario: Scenario) -> str:
    """A text that is the same for scenarios whose federations are the same."""
    content = {name: value for name, value in scenario.dump().items() if name not in _NO_DATA}
    deduplication = client_declaration(scenario.client).deduplication
    return json.dumps([content, scenario.has_pilot, repr(deduplication)], sort_keys=True)


def _text(scenario: Scenario, name: str) -> str:
    return json.dumps(scenario.dump()[name], sort_keys=True)


def width_of(scenario: Scenario) -> int:
    """Runs that advance at once."""
    return min(scenario.runs, scenario.speed.shard)


def partition(members: Sequence[int], sizes: Sequence[float], limit: float) -> list[tuple[int, ...]]:
    """Parts of members, in their order, each of one member or with sizes that sum to at most `limit`.

    >>> partition([0, 1, 2, 3], [2, 2, 9, 1], 4)
    [(0, 1), (2,), (3,)]
    """
    parts: list[list[int]] = []
    room = 0.0
    for member, size in zip(members, sizes, strict=True):
        if not parts or size > room:
            parts.append([])
            room = limit
        parts[-1].append(member)
        room -= size
    return [tuple(part) for part in parts]


ROUND_BYTES = 1 << 28
"""Models of one round that several scenarios hold together, at most."""


def group_alike(
    places: Sequence[int], scenarios: Mapping[int, Scenario], federations: Mapping[str, Federation]
) -> list[tuple[int, ...]]:
    """Scenarios whose clients may be in one stack, with models of one round that fit into memory.

    One network trains a stack, so that federations with frozen tensors of their own are apart. Scenarios whose
    clients are not stacked are apart as well, since draws belong to one round. So are those with tied units, which
    belong to the rows of one store, and those with client shards.
    """
    groups: dict[object, list[int]] = {}
    for i in places:
        key = data_of(scenarios[i])
        federation = federations[key]
        mode = federation.mode
        is_separate = mode.differs or mode.tied is not None or mode.client_shards is not None
        alike: object = i if is_separate else key if federation.frozen else None
        groups.setdefault(alike, []).append(i)
    return [
        part
        for members in groups.values()
        for part in partition(members, [_bytes(scenarios[i], federations) for i in members], ROUND_BYTES)
    ]


def _bytes(scenario: Scenario, federations: Mapping[str, Federation]) -> float:
    """Bytes of the models of one round."""
    from fedmem.federation.roster import Cohorts

    federation = federations[data_of(scenario)]
    model = sum(value.numel() * value.element_size() for value in federation.initial.values())
    return width_of(scenario) * Cohorts.draw(scenario, federation).largest_cohort * model
