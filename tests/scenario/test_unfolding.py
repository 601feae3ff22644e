"""Tests of `fedmem/scenario/unfolding.py`: where the problems of phases stand."""

from __future__ import annotations

import pytest

from tests.scenario.scenario_helpers import SMALL, problems

THEN = (
    SMALL
    + """\
then:
  - rounds: 3
    client: {kind: sgd, lr: 0.1}
"""
)
LINE = THEN.count("\n")


@pytest.mark.parametrize(
    ("override", "path", "part"),
    [
        ("then[0].client.lr=-1", "then[0].client.lr", "greater than 0"),
        ("then[0].rounds=0", "then[0].rounds", "greater than or equal to 1"),
        ("then[0].sampler={kind: nobody}", "then[0].sampler.kind", "nobody"),
        ("then[0].sampler={kind: uniform, size: 9}", "then[0].sampler.size", "9"),
        ("then[0].forget={kinds: [typicl]}", "then[0].forget.kinds[0]", "did you mean 'typical'"),
        ("then[0].forget={clients: [3]}", "then[0].forget.clients[0]", "client 3 does not exist"),
        ("then[0].forget={clients: [0, 1, 2]}", "then[0].forget.clients", "no client is left"),
        ("then[0].seed=4", "then[0].seed", "unknown key"),
    ],
)
def test_a_problem_names_its_phase(override: str, path: str, part: str) -> None:
    (problem,) = problems(THEN, override)
    assert problem.path == path
    assert part in problem.message
    assert problem.source == f"--set {override}"


def test_a_problem_in_a_file_has_its_line() -> None:
    (problem,) = problems(THEN.replace("{kind: sgd, lr: 0.1}\n", "{kind: dp_sgd}\n"))
    assert (problem.path, problem.line) == ("then[0].client", LINE)
