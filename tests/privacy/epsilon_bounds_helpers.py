"""What tests of epsilon bounds share."""

from __future__ import annotations

from fedmem.privacy.epsilon_bounds import (
    AuditedUnit,
)

RECORD = AuditedUnit(unit="record", adjacency="add_remove")
