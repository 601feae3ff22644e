"""What tests of coverage share."""

from __future__ import annotations

from dataclasses import dataclass

from fedmem.strategies._rule import Arrays, Round, ServerRule

NOISE = [{"kind": "clip", "norm": 2.0}, {"kind": "noise", "norm": 2.0, "multiplier": 30.0}]


@dataclass(frozen=True, kw_only=True)
class Undeclared(ServerRule):
    """Says nothing of what it reads."""

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        return rnd.before, state
