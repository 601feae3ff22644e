"""What tests of declared share."""

from __future__ import annotations

from typing import Any

from fedmem.errors import ScenarioError
from tests.tiny import tiny

ATTACK = {"kind": "inverting_gradients", "steps": 2}


COMPARING: list[dict[str, Any]] = [
    {"kind": "leakage", "attack": ATTACK},
    {"kind": "information"},
    {"kind": "extraction"},
    {"kind": "tests.declaring:Comparing"},
]


KINDS = [str(probe["kind"]) for probe in COMPARING]


def refusal(**changes: Any) -> list[tuple[str, str]]:
    """Path and message of every problem of the tiny scenario with these changes; none where it is accepted."""
    try:
        tiny(**changes)
    except ScenarioError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


LEFT_OUT = {"injections": [], "leave_out": {"clients": "all"}}
