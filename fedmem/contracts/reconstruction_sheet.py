"""The victims of reconstruction that a probe keeps in `reconstructions.npz`, written and read here alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.measurement import Level
from fedmem.errors import RunError

_PLACE = ("round", "level", "view", "run")
_REQUIRED = ("modality", "kind", "subject", "identified")


@dataclass(frozen=True, kw_only=True)
class ReconstructionSheet:
    """The first victims of one round, level, view and run, one entry of each column for each victim.

    Attributes:
        source: The source of the probe.
        round: The attacked round.
        level: The level of the attacked models.
        view: What the attacker saw, as in the label `view`, with the number of clients for a sum.
        run: The run.
        columns: Arrays by name, of the same length.
    """

    source: str = ""
    round: int
    level: Level
    view: str
    run: int
    columns: Mapping[str, NDArray[Any]]

    @property
    def name(self) -> str:
        """The name under which a probe keeps it: nothing reads what it says."""
        return f"round_{self.round}/{self.level}/{self.view}/run_{self.run}"

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The columns, and the place of the sheet as further columns."""
        size = len(next(iter(self.columns.values())))
        return {**self.columns, **{name: np.full(size, getattr(self, name)) for name in _PLACE}}


def read_reconstruction_sheets(arrays: Mapping[str, NDArray[Any]]) -> Iterator[ReconstructionSheet]:
    """The sheets among the arrays of `reconstructions.npz`, which are named `source/name/key`, in their order.

    Arrays without a view and a round are those of other probes. A sheet without one of its columns is a `RunError`.
    """
    groups: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        group, _, key = name.rpartition("/")
        groups.setdefault(group, {})[key] = array
    for group, columns in groups.items():
        if not {"round", "view"} <= columns.keys():
            continue
        missing = [name for name in (*_PLACE, *_REQUIRED) if not len(columns.get(name, ()))]
        if missing:
            raise RunError(
                f"reconstructions.npz is damaged: {group} has no {', '.join(missing)}; run the scenario again"
            )
        yield ReconstructionSheet(
            source=group.partition("/")[0],
            round=int(columns["round"][0]),
            level=cast(Level, str(columns["level"][0])),
            view=str(columns["view"][0]),
            run=int(columns["run"][0]),
            columns=columns,
        )
