"""Addresses in messages: names, passwords and keys in them are never shown."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

_SECRET = "…"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)


def is_url(text: str) -> bool:
    """Whether a text is an address such as `memory://runs` rather than a path.

    >>> is_url("s3://bucket/run"), is_url("runs/quickstart"), is_url("C:/runs")
    (True, False, False)
    """
    return "://" in text


def public_url(url: str) -> str:
    """An address without its user, password, query and fragment, which may all hold keys.

    >>> public_url("https://me:pass@example.org:8080/runs?key=abc#token")
    'https://…@example.org:8080/runs?…'
    >>> public_url("runs/quickstart")
    'runs/quickstart'
    """
    address, sign, _ = url.partition("?")
    address, hash_sign, _ = address.partition("#")
    scheme, colon, rest = address.rpartition("://")
    if not colon:
        return address + (f"{sign or hash_sign}{_SECRET}" if sign or hash_sign else "")
    user, at, place = rest.rpartition("@")
    shown = f"{_SECRET}@{place}" if at and user else rest
    return f"{scheme}://{shown}" + (f"?{_SECRET}" if sign or hash_sign else "")


def without_secrets(text: str, url: str) -> str:
    """A message of a library about an address, without what `public_url` hides.

    >>> without_secrets("no route to https://me:p%40ss@example.org; p@ss was refused", "https://me:p%40ss@example.org")
    'no route to https://…@example.org; … was refused'
    """
    shown = text.replace(url, public_url(url))
    shown = _ADDRESS.sub(lambda match: public_url(match[0]), shown)
    for secret in sorted(_secrets_of(url), key=len, reverse=True):
        shown = shown.replace(secret, _SECRET)
    return shown


def _secrets_of(url: str) -> set[str]:
    """The user, the password and the values of the query, as written and decoded."""
    try:
        parts = urlsplit(url)
        pieces = [parts.username or "", parts.password or "", parts.fragment]
    except ValueError:
        return set()
    pieces += [value for pair in parts.query.split("&") for value in pair.partition("=")[2:]]
    return {text for piece in pieces for text in (piece, unquote(piece)) if len(text) > 2}
