"""What tests of main share."""

from __future__ import annotations

import subprocess
import sys

from click.testing import Result
from typer.testing import CliRunner

from fedmem.cli.main import app

SMALL = """\
# fedmem run small.yaml
runs: 2
rounds: 2
clients: 3
dataset: {kind: synthetic, rows: 200, test: 40}
model: {kind: mlp, hidden: [8]}
population: 20
references: 50
bootstrap: 40
injections:
  - {kind: typical, per_client: 1}
estimators:
  - {kind: memorisation}
"""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def outside(
    *arguments: str, code: str = "from fedmem.cli.main import main; main()"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
