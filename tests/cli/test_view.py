"""`fedmem view` prints its address, and ends with Ctrl-C without a traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.cli.main_helpers import call


def test_ctrl_c_ends_the_server(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from fedmem.cli.main import main; main()", "view", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert b"There is no finished run here" in answer.read()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors.splitlines() == ["Only this machine can open it. Ctrl-C ends it.", "ended"]


def test_a_missing_folder_is_a_wrong_command(tmp_path: Path) -> None:
    result = call("view", str(tmp_path / "nowhere"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no folder" in result.stderr
    assert call("view", "--port", "70000").exit_code == 2
