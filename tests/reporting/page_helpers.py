"""What tests of page share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from fedmem.contracts.measurement import Labels, Measurement, Reading
from fedmem.reporting.table import table
from tests.labelling import labels

KINDS = ("pattern", "typical-own")


SCENARIO = (
    "name: 'a <b>bold</b> $name [red]'\nruns: 4\nrounds: 10\nclients: 3\nreferences: 9\nprobes: [{kind: utility}]\n"
)


def row(metric: str, value: float, subject: str = "", about: str | Labels = "", **place: Any) -> Measurement:
    """A row of the conventions of fedmem.estimation.estimates; the interval is ± 0.1 unless given."""
    low, high = place.pop("low", value - 0.1), place.pop("high", value + 0.1)
    own = labels(about) if isinstance(about, str) else about
    reading = Reading(metric=metric, value=value, low=low, high=high, n=place.pop("n", 80), subject=subject, labels=own)
    everywhere: dict[str, Any] = {"run": None, "round": None, "level": "global", "client": -1, "source": "some"}
    return Measurement(**everywhere | place, reading=reading)


def at(place: str) -> str:
    """A place as a label."""
    return f"place={place}" if place else ""


def rows(kinds: tuple[str, ...] = KINDS) -> list[Measurement]:
    found = []
    for round_number in (0, 5, 10, None):
        for i, kind in enumerate(kinds):
            for metric, variant, value in (
                ("memorisation", "", 0.5), ("memorisation", "statistic=probability", 0.6), ("auc", "attack=lira", 0.8),
                ("auc", "attack=loss_threshold", 0.6),
                ("tpr", f"attack=lira fpr={0.0078 if round_number is None else 0.0156}", 0.3),
                *((("exposure", "", 4.0),) if i == 0 else ()),
            ):  # fmt: skip
                for level, place in (("local", "owner"), ("local", "others"), ("global", "")):
                    if round_number == 0 and level == "local":
                        continue
                    shown = value + (0.25 if place == "owner" else 0) - 0.3 * i
                    here = f"{at(place)} {variant}"
                    found.append(row(metric, shown, kind, here, level=level, round=round_number))
                    null = {"exposure": 1.155, "auc": 0.5, "tpr": 0.0078}.get(metric, 0.0)
                    if round_number is None:
                        nothing = {"low": math.nan, "high": math.nan}
                        found.append(row(f"{metric}.null", null, kind, here, level=level, **nothing))
        for level in ("local", "global"):
            found.append(row("test_accuracy", 0.9, level=level, round=round_number, n=320 if level == "local" else 32))
            found.append(row("generalisation_gap", 0.01, level=level, round=round_number, n=32, low=-0.01, high=0.03))
    first, second = kinds
    found += [
        row("memorisation.difference", 0.25, first, "contrast=levels minus=global"),
        row("memorisation.difference", -0.25, second, "contrast=levels minus=global"),
        row("memorisation.difference", 0.05, first, f"contrast=kinds minus={second}", low=-0.02, high=0.12),
        row("auc.difference", 0.3, first, f"contrast=kinds minus={second} place=owner attack=lira", level="local"),
        row("retention", 0.67, first, "of=memorisation"),
        row("retention", math.nan, second, "of=memorisation resolved=no", low=math.nan, high=math.nan),
        row("retention", 0.99, first, "of=memorisation over=rounds"),
    ]
    for view, level, value, difference in (
        ("message", "local", -2.0, 1.5), ("aggregate", "global", -4.0, 0.05), ("first_step", "local", 3.0, -0.7),
    ):  # fmt: skip
        about = f"view={view} knows=lr+steps"
        found.append(row("margin", value, first, about, level=level, n=7))
        found.append(row("margin", value - difference, first, f"{about} coin=out", level=level, n=6))
        found.append(
            row("margin.difference", difference, first, f"contrast=coins minus=out {about}", level=level, n=13)
        )
    found.append(row("margin", -1.0, second, "view=message knows=lr+steps", level="local", n=7))
    for i in range(6):
        for level, place in (("local", "owner"), ("global", "")):
            found.append(row("memorisation", i / 7, str(i), at(place), level=level, n=4, low=math.nan, high=math.nan))
    return found


def pictures() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kept: dict[str, np.ndarray] = {}
    for level, view in (("local", "message"), ("global", "aggregate")):
        base = f"leakage/round_5/{level}/{view}/run_0"
        for part in ("original", "reconstruction", "prior"):
            kept[f"{base}/{part}"] = rng.random((5, 1, 4, 4), np.float32)
        kept |= {f"{base}/kind": np.array(["pattern"] * 4 + ["typical-own"]), f"{base}/subject": np.arange(5)}
        kept |= {f"{base}/psnr": np.arange(5.0), f"{base}/prior_psnr": np.full(5, 7.0)}
        kept[f"{base}/identified"] = np.array([0.0, 1.0, 0.0, 1.0, np.nan])
        place = {"round": 5, "level": level, "view": view, "run": 0}
        kept |= {f"{base}/{name}": np.array([value] * 5) for name, value in place.items()}
        kept[f"{base}/modality"] = np.array(["images"] * 5)
    return kept


def printed(folder: Path, width: int = 100) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(folder), crop=False)
    console.file.close()
    return console.export_text()


def lines(folder: Path, width: int) -> list[str]:
    return [line.rstrip() for line in printed(folder, width).splitlines() if not line.startswith("Files: ")]
