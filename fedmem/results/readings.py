"""Writes the tables of what was read of the runs of a bank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedmem.contracts.evidence import Bank
from fedmem.contracts.measurement import Measurement
from fedmem.results.evidence_table import write_evidence
from fedmem.results.tables import participation_rows, reference_layout, reference_rows, write_measurements, write_table


def write_readings(folder: Path, bank: Bank, measurements: Sequence[Measurement], condition: str = "") -> None:
    """Writes measurements, with what they are conditional on, evidence, references and participation."""
    write_measurements(folder, measurements, condition)
    write_evidence(folder, bank.evidence)
    layout: Any = [reference_layout(block) for block in bank.references]
    write_table(folder, "references", (reference_rows(block, bank.audit) for block in bank.references), layout)
    write_table(folder, "participation", [participation_rows(bank.participation)])
