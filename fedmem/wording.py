"""The wording of mistakes: the given value, the accepted values, and the probable intention."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def did_you_mean(value: object, options: Iterable[str]) -> str:
    """` (did you mean 'x'?)` or nothing.

    >>> did_you_mean("dirichelt", ["iid", "dirichlet"])
    " (did you mean 'dirichlet'?)"
    """
    near = nearest(str(value), options)
    return f" (did you mean {near!r}?)" if near is not None else ""


def nearest(value: str, options: Iterable[str]) -> str | None:
    """The option that is written most alike; capitals, and lines and spaces between words, do not count.

    >>> nearest("LossThreshold", ["lira", "loss_threshold"]), nearest("my PIN", ["My PIN"]), nearest("x", ["abc"])
    ('loss_threshold', 'My PIN', None)
    """
    options = list(options)
    folded = {_fold_case(option): option for option in reversed(options)}
    near = difflib.get_close_matches(value, options, n=1)
    if _fold_case(value) in folded:
        return folded[_fold_case(value)]
    near = near or [folded[key] for key in difflib.get_close_matches(_fold_case(value), list(folded), n=1)]
    return near[0] if near else None


def _fold_case(text: str) -> str:
    """A text without capitals, lines and spaces."""
    return text.casefold().replace("_", "").replace("-", "").replace(" ", "")


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


def client_with_name(client: int, name: str = "") -> str:
    """A client in a message about a scenario, whose fields take numbers: its number, and its name if it has one.

    >>> client_with_name(1, "Süd"), client_with_name(1)
    ('client 1 (Süd)', 'client 1')
    """
    return f"client {client} ({name})" if name.strip() else f"client {client}"


def client_text(client: int, names: Sequence[str] = ()) -> str:
    """A client in results: its name, or its number where it has none; a name that is itself a number with both.

    >>> client_text(1, ("Nord", "Süd")), client_text(1), client_text(0, ("7",)), client_text(-1)
    ('Süd', 'client 1', 'client 0 (7)', 'nobody')
    """
    if client < 0:
        return "nobody"
    name = names[client] if client < len(names) else ""
    return name if name.strip() and not _is_number(name) else client_with_name(client, name)


def class_text(label: int, names: Sequence[str] = ()) -> str:
    """A class for people: its name, or its number where it has none; a name that is another number with both.

    >>> class_text(1, ("cat", "dog")), class_text(1), class_text(0, ("7",)), class_text(7, tuple("01234567"))
    ('dog', '1', '7 (class 0)', '7')
    """
    if label < len(names) and names[label] == str(label):
        return names[label]
    name = names[label] if label < len(names) else ""
    if not name.strip():
        return f"class {label}" if label < len(names) else str(label)
    return f"{name} (class {label})" if _is_number(name) else name


def _is_number(name: str) -> bool:
    return name.strip().lstrip("+-").isdecimal()
