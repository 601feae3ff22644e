"""A small scenario that saves models."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "runs": 6,
    "injections": [{"kind": "typical", "per_client": 1}],
    "estimators": [{"kind": "memorisation"}],
}
SAVE: dict[str, Any] = {"models": {"rounds": [2, -1], "runs": 5}, "params": True}
