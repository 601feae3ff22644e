"""The wording of mistakes: the given value, the accepted values, and the probable intention."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(value: object, options: Iterable[str]) -> str:
    """` (did you mean 'x'?)` or nothing.

    >>> did_you_mean("dirichelt", ["iid", "dirichlet"])
    " (did you mean 'dirichlet'?)"
    """
    near = difflib.get_close_matches(str(value), list(options), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def choices(value: object, options: Iterable[str]) -> str:
    """The suggestion, then everything that is accepted.

    >>> choices("dirichelt", ["iid", "dirichlet"])
    " (did you mean 'dirichlet'?); choose from: iid, dirichlet"
    """
    options = list(options)
    return f"{did_you_mean(value, options)}; choose from: {', '.join(options) or 'nothing, it takes none'}"


def bytes_text(count: float) -> str:
    """A number of bytes with a fitting unit.

    >>> bytes_text(1_234), bytes_text(45_600_000), bytes_text(7.89e9)
    ('0.0 MB', '46 MB', '7.9 GB')
    """
    megabytes = count / 1e6
    if megabytes >= 1000:
        return f"{megabytes / 1000:.1f} GB"
    return f"{megabytes:.0f} MB" if megabytes >= 10 else f"{megabytes:.1f} MB"
