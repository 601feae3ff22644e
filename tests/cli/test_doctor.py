"""Tests of `fedmem/cli/doctor.py`."""

from __future__ import annotations

import pytest

from fedmem.apps.installation import Finding
from tests.cli.main_helpers import call, outside

OFFLINE = """\
import socket
def refuse(*_, **__):
    raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from fedmem.cli.main import main
main()
"""


def test_doctor_reports_an_installation_that_works_offline() -> None:
    done = outside("doctor", code=OFFLINE)
    assert done.returncode == 0, done.stderr
    for word in ("fedmem", "python", "torch", "flwr", "cores", "cache", "disk", "extras", "No problem was found"):
        assert word in done.stdout
    assert done.stderr == ""


def test_problems_are_errors_with_exit_code_one(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = (
        Finding(title="disk", text="full", problems=("no space; free some",)),
        Finding(title="python", text="3"),
    )
    monkeypatch.setattr("fedmem.apps.installation.examine", lambda: findings)
    done = call("doctor")
    assert done.exit_code == 1
    assert done.stderr == "error: no space; free some\n"
    assert "  disk       full" in done.stdout
    assert "No problem" not in done.stdout
