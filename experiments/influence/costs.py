"""How much each approximation costs, in forward passes of one example, beside training the federation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from experiments.influence.analysis import APPROXIMATIONS
from fedmem.contracts.client import ScheduledClient
from fedmem.contracts.families import kind_of
from fedmem.contracts.signal import signal_declaration
from fedmem.federation.build import build
from fedmem.scenario.scenario import Scenario

STEP = 3.0
"""Forward passes that one example in a step of training costs, about: a backward pass counts as two."""


def costs(scenario: Scenario) -> pd.DataFrame:
    """A row for each approximation and level: its passes for all audit examples, and divided by those of one training.

    They follow from what signals declare, as `fedmem check` prices them, and not from a clock. Memorisation by
    retraining costs as many trainings as the bank has runs.
    """
    federation = build(scenario)
    assert isinstance(scenario.client, ScheduledClient)
    sizes = [int(size) for size in federation.base_sizes]
    trained = sum(min(scenario.client.num_steps(n) * scenario.client.batch_size, _epochs(scenario) * n) for n in sizes)
    training = STEP * scenario.rounds * trained
    rows = []
    for signal in scenario.signals:
        if kind_of(signal) not in APPROXIMATIONS:
            continue
        for level in ("local", "global"):
            models = len(sizes) if level == "local" else 1
            alone: Any = replace(signal, levels=(level,))  # type: ignore[type-var]
            declared = signal_declaration(alone)
            each, others = (
                (declared.passes, float(declared.model_rows))
                if declared.passes_in is None
                else declared.passes_in(federation)
            )
            read = scenario.rounds // (signal.every or 1)
            passes = read * (each * len(federation.audit) + others * models)
            rows.append({"level": level, "of": kind_of(signal), "passes": passes, "trainings": passes / training})
    return pd.DataFrame(rows)


def _epochs(scenario: Scenario) -> int:
    return int(getattr(scenario.client, "epochs", 1))
