"""Models stay as they are: the rounds of the phase, on all other rows, are the whole procedure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedmem.contracts.arrays import Params
from fedmem.contracts.unlearner import UnlearningContext


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """Unlearning by further training alone, the weakest baseline.

    The numbers are those of a phase without an unlearner. In addition, the models before the phase are stored as
    `audit_before` and `test_before`.

    Fields: none.

    >>> FineTune()
    FineTune()
    """

    def unlearn(self, context: UnlearningContext) -> Sequence[Params]:
        """The models as they are."""
        return [run.before for run in context.runs]
