"""What tests of scenario share."""

from __future__ import annotations

import pytest

from fedmem.errors import Problem, ScenarioError
from fedmem.scenario.loading import parse_scenario

SMALL = """\
runs: 4
rounds: 6
clients: 3
dataset: {kind: synthetic}
model: {kind: mlp, hidden: [8]}
client:
  kind: sgd
  lr: 0.1
strategy: {kind: fedadam, server_lr: 0.1}
injections:
  - {kind: typical, per_client: 1}
estimators:
  - kind: membership
    attack: {kind: loss_threshold}
"""


def problems(text: str = SMALL, *overrides: str) -> tuple[Problem, ...]:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "small", overrides)
    return caught.value.problems
