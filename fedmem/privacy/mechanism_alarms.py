"""The needs of the probe `mechanism`, and the alarms that its tests raise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.client import ClientAlgorithm, PrivateAlgorithm, ScheduledClient
from fedmem.contracts.families import kind_of
from fedmem.contracts.measurement import Labels, Measurement
from fedmem.contracts.probe import MechanismTest, Probe
from fedmem.contracts.strategy import StrategyMaker, strategy_declaration
from fedmem.errors import Problem

if TYPE_CHECKING:
    from fedmem.scenario.observing import Observe
    from fedmem.scenario.scenario import Scenario

METRIC = "mechanism_p"
"""The p-value of a test of the mechanism, by its labels; that of all tests together has `test` = `all`."""


def name_of(test: Labels) -> str:
    """The name of a test of the mechanism: the quantity that it tests, and the place."""
    where = test.without("test")
    return f"{test.get('test')}{', ' * bool(where)}{where}"


def problems(
    strategy: StrategyMaker, client: ClientAlgorithm, probes: Sequence[Probe], observe: Observe
) -> Iterator[Problem]:
    """Problems of probes that test a mechanism: no mechanism, or no level at which it is observed."""
    server, records = strategy_declaration(strategy).release_statement is not None, isinstance(client, PrivateAlgorithm)
    for position, probe in enumerate(probes):
        if not isinstance(probe, MechanismTest) or not probe.tests_mechanism:
            continue
        path = f"probes[{position}]"
        if not server and not records:
            yield Problem(
                path=path,
                message=f"neither strategy {kind_of(strategy)} nor client {kind_of(client)} states noise that could be "
                "tested; use dp_fedavg, dp_adaptive, dp_ftrl or client dp_sgd, or leave this out",
            )
            continue
        if records and not isinstance(client, ScheduledClient):
            yield Problem(
                path=path,
                message=f"the steps of client {kind_of(client)} cannot be tested: its class has no method "
                "schedule(round_number, num_steps), which returns a fedmem.contracts.client.Schedule. Add the method, "
                "or leave this out",
            )
        levels = [level for level, is_tested in (("global", server), ("local", records)) if is_tested]
        missing = [level for level in levels if level not in observe.levels]
        if missing:
            yield Problem(
                path="observe.levels",
                message=f"{' and '.join(missing)} must be observed for probe mechanism, where the noise is; write "
                f"levels: [{', '.join(dict.fromkeys((*observe.levels, *missing)))}]",
            )


def alarms(scenario: Scenario, rows: Sequence[Measurement]) -> list[str]:
    """The tests that contradict the stated mechanism, where a probe may raise an alarm."""
    messages = []
    for probe in scenario.probes:
        if not (isinstance(probe, MechanismTest) and probe.tests_mechanism and probe.alarm):
            continue
        p_rows = [row for row in rows if row.reading.metric == METRIC and row.round is None]
        for level in dict.fromkeys(row.level for row in p_rows):
            tests = [row.reading for row in p_rows if row.level == level]
            (whole,) = [row for row in tests if row.labels.get("test") == "all"]
            if whole.value > probe.level:
                continue
            worst = min((row for row in tests if row is not whole), key=lambda row: row.value)
            messages.append(
                f"mechanism, {level}: {name_of(worst.labels)} contradicts the stated mechanism (p "
                f"{worst.value:.2g}; {whole.n} tests at level {probe.level:g} together); the noise, the clipping or "
                "the batches are wrong"
            )
    return messages
