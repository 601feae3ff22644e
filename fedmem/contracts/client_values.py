"""Values of clients that a strategy or a sampler may declare to read besides updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

READS: Mapping[str, str] = {
    "rows": "the numbers of rows",
    "steps": "the numbers of local steps",
    "lr": "the learning rates",
    "loss": "the losses",
    "norm": "the norms of the updates",
    "atypical": "what clients hold",
}
"""Each value, and its name in messages."""

Value = Literal["rows", "steps", "lr", "loss", "norm", "atypical"]

SOME_READS = (
    f'a tuple of some of {", ".join(READS)}, or (); write for example reads: ClassVar[tuple[str, ...]] = ("rows",)'
)
"""The allowed values of a declaration of reads, in words."""
