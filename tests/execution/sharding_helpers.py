"""What tests of sharding share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedmem.contracts.events import Event, RoundFinished, Share, StageStarted, TrainingStarted
from fedmem.processes import can_fork

needs_forks = pytest.mark.skipif(not can_fork(), reason="forks are for Linux")


TABLES = ("measurements", "evidence", "references", "participation", "audit")


SMALL: dict[str, Any] = {
    "rounds": 2,
    "injections": [{"kind": "random_pattern", "per_client": 1}, {"kind": "typical", "per_client": 1}],
    "probes": [{"kind": "utility"}],
}


def written(folder: Path) -> dict[str, bytes]:
    """Everything but what says how fast it was computed."""
    pictures = [path.name for path in sorted(folder.glob("reconstructions*.png"))]
    names = [*(f"{table}.parquet" for table in TABLES), "reconstructions.npz", *pictures, "params.safetensors"]
    models = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("models/*"))]
    return {name: (folder / name).read_bytes() for name in [*names, *models] if (folder / name).exists()}


class Stopping:
    """A listener that presses Ctrl-C when so many rounds are done."""

    def __init__(self, after: int = 10**9) -> None:
        self.after = after
        self.said: list[str] = []
        self.total = 0
        self.share = Share()
        self.shares: list[float] = []

    def __call__(self, event: Event) -> None:
        self.share(event)
        if isinstance(event, TrainingStarted):
            self.total = event.rounds * event.shards
            self.said.append(str(event))
        elif isinstance(event, StageStarted):
            self.said.append(event.text)
        elif isinstance(event, RoundFinished):
            assert event.accuracy is None or 0 <= event.accuracy <= 1
            self.shares.append(self.share.done)
            if len(self.shares) > self.after:
                raise KeyboardInterrupt
