"""Values at both levels with their intervals, as small bars for the rows of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fedmem.reporting.cells import Value
from fedmem.reporting.svg import short_numbers

_WIDTH, _HEIGHT, _MARGIN = 208.0, 24.0, 6.0
_ROWS = {"local": 7.0, "global": 17.0}


def interval_bars(values: Mapping[str, Value], span: tuple[float, float], null: float = math.nan) -> str:
    """SVG that needs no escaping: a dot and an interval for `local` and `global`, and a line at the null.

    Args:
        values: by level; what is not finite is left out.
        span: the values at the left and the right end. Intervals are cut there.
        null: the value without memorisation; NaN for none.

    Examples:
        >>> bars = interval_bars({"local": Value(value=0.5, low=0.25, high=0.75, n=9)}, (0.0, 1.0))
        >>> 'M55 7H153' in bars and 'cx="104"' in bars
        True
    """
    low, high = span
    width = (high - low) or 1.0

    def place(value: float) -> str:
        share = min(max((value - low) / width, 0.0), 1.0)
        return short_numbers(f"{_MARGIN + share * (_WIDTH - 2 * _MARGIN):.3f}")

    parts = [f'<path class="axis" d="M{place(low)} 12H{place(high)}"/>']
    if not math.isnan(null):
        parts.append(f'<path class="null" d="M{place(null)} 0V24"/>')
    for level, y in _ROWS.items():
        value = values.get(level)
        if value is None or not math.isfinite(value.value):
            continue
        has_interval = not math.isnan(value.low + value.high)
        interval = f"M{place(value.low)} {y:g}H{place(value.high)}" if has_interval else ""
        middle = place(value.value)
        mark = f'<circle cx="{middle}" cy="{y:g}" r="3"/>'
        if level == "global":
            mark = f'<path d="M{middle} {y:g}m-2.5-2.5h5v5h-5z"/>'
        parts.append(f'<g class="{level}"><path d="{interval}"/>{mark}</g>')
    return f'<svg class="bars" aria-hidden="true" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}">{"".join(parts)}</svg>'
