"""Tests of `fedmem/scenario/check_phases.py`: what cannot follow a training."""

from __future__ import annotations

import pytest

from tests.scenario.scenario_helpers import SMALL, problems

THEN = "then=[{rounds: 2}]"


@pytest.mark.parametrize(
    ("overrides", "path", "part"),
    [
        (("then[0].client={kind: dp_sgd}",), "then[0].client", "leave out the phases before it"),
        (
            ("then[0].strategy={kind: dp_fedavg, noise_multiplier: 1.0, clip: 1.0}",),
            "then[0].strategy",
            "adds noise for a privacy guarantee",
        ),
        (
            ("then[0].defences=[{kind: noise, multiplier: 0.1}]",),
            "then[0].defences[0]",
            "adds noise for a privacy guarantee",
        ),
        (("client={kind: fedper}",), "client", "keeps layers at each client"),
        (("speed.engine=flower",), "speed.engine", "engine lockstep"),
        (
            ("central=shuffled", "strategy={kind: fedavg}", "then[0].forget.clients=[0]"),
            "then[0].forget.clients",
            "forget kinds",
        ),
        (
            ("injections[0].copies=2", "injections[0].unmasked=1", "then[0].forget.kinds=[typical]"),
            "then[0].forget.kinds[0]",
            "cannot be forgotten",
        ),
    ],
)
def test_it_is_refused(overrides: tuple[str, ...], path: str, part: str) -> None:
    found = problems(SMALL, THEN, *overrides)
    assert [(problem.path, part in problem.message) for problem in found if part in problem.message] == [(path, True)]
