"""What tests of provenance share."""

from __future__ import annotations

OWN = '''"""A client algorithm of somebody's own."""

from dataclasses import dataclass

from own_package.middle import RATE
from fedmem.clients.sgd import Sgd


@dataclass(frozen=True, kw_only=True)
class Mine(Sgd):
    """Mine."""

    lr: float = RATE
'''
