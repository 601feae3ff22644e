"""No name, password or key of an address gets into a message."""

from __future__ import annotations

import pytest

from fedmem.results.urls import is_url, public_url, without_secrets

HOSTILE = [
    "https://user:s3cr3t@example.org/a",
    "https://s3cr3t@example.org/a",
    "ftp://user:pass/s3cr3t@example.org/a",
    "ftp://user:pa@s3cr3t@example.org/a",
    "https://example.org/a?X-Amz-Signature=s3cr3t&b=1",
    "https://example.org/a#s3cr3t",
    "simplecache::https://user:s3cr3t@example.org/a?token=s3cr3t",
    "s3://KEY:s3cr3t@bucket/run",
]


@pytest.mark.parametrize("url", HOSTILE)
def test_addresses_are_shown_without_keys(url: str) -> None:
    assert "s3cr3t" not in public_url(url)
    assert public_url(url).startswith(url.partition("//")[0])
    message = f"cannot open {url!r}: <{url}>, at {url.removeprefix('simplecache::')}/checksums.json"
    shown = without_secrets(message, url)
    assert shown.startswith("cannot open ")
    assert "X-Amz" not in shown
    assert "s3cr3t" not in shown


def test_a_password_is_hidden_wherever_it_stands() -> None:
    shown = without_secrets("login of me with p%40ss or p@ss failed", "https://someone:p%40ss@example.org/run")
    assert "p@ss" not in shown
    assert "p%40ss" not in shown


def test_plain_addresses_and_paths_stay_as_they_are() -> None:
    for text in ("memory://runs/a", "s3://bucket/run", "runs/a b", "file:///work/runs", "C:\\runs"):
        assert public_url(text) == text
        assert without_secrets(f"no {text} there", text) == f"no {text} there"
    assert is_url("memory://a")
    assert not is_url("runs/a")
