"""What is called as training goes on."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a run tells while it goes on."""

    def start(self, rounds: int, runs: int) -> None: ...

    def update(self, round: int, accuracy: float | None) -> None: ...

    def stage(self, text: str) -> None: ...
