"""Every piece of Python and every command of the page on one's own app runs, and finds what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "attack-your-own-app.md").read_text(encoding="utf-8")
APP, SAVE = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
(COMMAND,) = re.findall(r"^\$ (.*)$", PAGE, flags=re.MULTILINE)

DRIVER = """
from flwr.app import Context, RecordDict
from app import client_app, server_app
from fedmem.engines._flower import FIRST_NODE, LocalGrid, in_process

def exchange(messages):
    replies = []
    for message in messages:
        node = message.metadata.dst_node_id
        config = {"partition-id": node - FIRST_NODE, "num-partitions": 5}
        replies.append(client_app(message, Context(1, node, config, RecordDict(), {})))
    return replies

with in_process():
    server_app(LocalGrid(5, exchange), Context(1, 1, {}, RecordDict(), {}))
"""


def python(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_app_of_the_page_identifies_only_its_own_clients_images(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    assert "identified" in python(DRIVER, tmp_path)
    frame = pd.read_csv(tmp_path / "leakage.csv")
    assert set(frame["round"]) == {1}
    assert set(frame.level) == {"local", "global"}
    local = frame[frame.level == "local"]
    assert set(local.client) == set(range(5))
    assert set(local.identity) == {"partition-id"}
    owner, others = local[local.holds], local[~local.holds]
    assert set(owner.client) == {0}
    assert owner.identified.mean() >= 0.5
    assert others.identified.mean() <= 0.1
    assert owner.margin.mean() > others.margin.mean() + 3
    assert set(frame[frame.level == "global"].clients) == {5}


def test_the_command_of_the_page_finds_both_images(tmp_path: Path) -> None:
    python(SAVE, tmp_path)
    program, *arguments = shlex.split(COMMAND)
    assert program == "fedmem"
    done = subprocess.run(
        [str(Path(sys.executable).with_name("fedmem")), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "clients 1 (default, not given)" in done.stdout
    assert "match: good" in done.stdout
    assert "identified 2 of 2" in done.stdout
    assert {file.name for file in (tmp_path / "attacked").iterdir()} == {
        "attack.json",
        "reconstruction.npz",
        "report.html",
        "sheet.png",
    }
