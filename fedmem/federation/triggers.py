"""Rows with the trigger of a backdoor, which no client trains on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedmem.contracts.data import Examples, Space
from fedmem.contracts.federation import TriggeredRows
from fedmem.contracts.injection import Injection, TriggeredInjection
from fedmem.guards.guarding import Guard


def triggered_rows(injections: Sequence[Injection], test: Examples, space: Space) -> tuple[TriggeredRows, ...]:
    """For each injection with a trigger, the test rows of other classes than its target, without and with it.

    Errors: `ComponentError` where the trigger changes the shape or the type of inputs.
    """
    parts = []
    for injection in injections:
        if not isinstance(injection, TriggeredInjection):
            continue
        clean = test.inputs[test.targets != injection.target]
        with Guard("injection", injection, "with_trigger") as guard:
            triggered: object = injection.with_trigger(clean.copy(), space)
            if not isinstance(triggered, np.ndarray) or (triggered.shape, triggered.dtype) != (
                clean.shape,
                clean.dtype,
            ):
                guard.reject(f"it should return {clean.dtype} of shape {clean.shape}")
        parts.append(TriggeredRows(kind=injection.name, target=injection.target, clean=clean, triggered=triggered))
    return tuple(parts)
