"""What tests of measures share."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

THROWAWAY = {
    "throwaway_probe": '''
        """A probe in one file."""

        from dataclasses import dataclass, replace
        from typing import ClassVar

        from fedmem.contracts.measure import Measure
        from fedmem.contracts.measurement import Reading


        @dataclass(frozen=True, kw_only=True)
        class Sizes:
            measures: ClassVar[tuple[Measure, ...]] = (
                Measure(
                    name="layer_norms",
                    title="norm of the weights",
                    means="Length of the vector of all parameters.",
                    is_not="It is no distance.",
                    unit="units",
                    headline=True,
                    terms=(("norm of the weights", "length of all parameters"),),
                ),
            )
            every: int | None = None
            levels: tuple[str, ...] = ("local", "global")

            def observe(self, transitions, context):
                lengths = [sum(float(v.double().square().sum()) for v in t.kept.values()) ** 0.5 for t in transitions]
                return [(t, Reading(metric="layer_norms", value=x)) for t, x in zip(transitions, lengths, strict=True)]

            def summarise(self, measurements, seed):
                groups = {}
                for one in measurements:
                    groups.setdefault((one.round, one.level), []).append(one)
                means = []
                for rows in groups.values():
                    values = [row.reading.value for row in rows]
                    reading = Reading(metric="layer_norms", value=sum(values) / len(values), n=len(values))
                    means.append(replace(rows[0], run=None, client=-1, reading=reading))
                last = max((one.round for one in means), default=0)
                return [*means, *(replace(one, round=None) for one in means if one.round == last)]
    ''',
    "throwaway_estimator": '''
        """An estimator in one file."""

        from dataclasses import dataclass, replace
        from typing import ClassVar

        from fedmem.contracts.measure import Measure
        from fedmem.estimators.memorisation import Memorisation


        @dataclass(frozen=True, kw_only=True)
        class Twice:
            measures: ClassVar[tuple[Measure, ...]] = (
                Measure(
                    name="trace",
                    title="trace of training",
                    means="How much more often the model is right, by another name.",
                    is_not="It is nothing new.",
                    range=(-1.0, 1.0),
                    null=0.0,
                    headline=True,
                    terms=(("trace of training", "the same by another name"),),
                ),
            )

            def estimate(self, view):
                return [replace(one, metric="trace") for one in Memorisation().estimate(view) if not one.labels]

            def tests(self, view):
                return ()
    ''',
}


def write_throwaway(folder: Path) -> dict[str, Any]:
    """Write the modules of both throwaway components; the changes to a scenario that use them."""
    for name, text in THROWAWAY.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return {
        "runs": 8,
        "probes": [{"kind": "throwaway_probe:Sizes"}],
        "estimators": [{"kind": "throwaway_estimator:Twice"}],
    }
