"""What tests of estimators share."""

from __future__ import annotations

from collections.abc import Sequence

from fedmem.contracts.estimator import Estimate


def by_key(estimates: Sequence[Estimate]) -> dict[tuple[str, str, str], Estimate]:
    return {(e.metric, " ".join(e.labels.words()), e.kind): e for e in estimates}
