"""What tests of summary share."""

from __future__ import annotations

import math

from fedmem.contracts.measurement import Measurement
from tests.reporting.page_helpers import at, row

NOTHING = {"low": math.nan, "high": math.nan}


def newer() -> list[Measurement]:
    found = []
    for level, place in (("local", "owner"), ("global", "")):
        for extra, shift in (("", 0.0), ("statistic=probability", 10.0)):
            about = f"{at(place)} {extra}"
            more = {"level": level, "n": 20}
            for kind, net in (("pattern", 1.5), ("typical-own", -2.5)):
                found += [
                    row("cross_influence", net + shift, kind, about, **more),
                    row("cross_influence.null", 0.0, kind, about, **more, **NOTHING),
                    row("cross_help", 3.0 + shift, kind, about, **more),
                    row("cross_help.null", 2.75 + shift, kind, about, **more, **NOTHING),
                    row("cross_help_p", 0.04, kind, about, level=level, n=200, **NOTHING),
                    row("cross_harm", -4.0 - shift, kind, about, **more),
                    row("cross_harm.null", -3.9 - shift, kind, about, **more, **NOTHING),
                    row("cross_harm_p", 0.6, kind, about, level=level, n=200, **NOTHING),
                    row("cross_pairs_helped", 1234, kind, about, level=level, n=9000, **NOTHING),
                    row("cross_pairs_harmed", 5, kind, about, level=level, n=9000, **NOTHING),
                ]
        for scale in ("", "scale=margin"):
            about = f"{at(place)} {scale}"
            bits = 12.0 if scale else 11.0
            found.append(row("exposure_extrapolated", bits, "pattern", about, level=level))
            found.append(row("exposure_extrapolated.null", 1.4427, "pattern", about, level=level, **NOTHING))
        for subject, gap in (("", 0.2), ("client 2", 0.3), ("client 10", 0.4)):
            found.append(row("client_accuracy_gap", gap, subject, level=level, n=12))
    for read_at in ("accuracy", "loss", "own", "own_in", "accuracy target=3"):
        about = f"statistic={read_at}"
        found.append(row("client_influence", 0.05, "", about, n=3, low=0.01, high=0.09, source="client_influence"))
        for client, (value, half) in enumerate(((0.3, 0.1), (-0.2, 0.1), (0.05, 0.2))):
            some = {"low": value - half, "high": value + half, "n": 12, "source": "client_influence"}
            found.append(row("client_influence", value, f"client {client}", about, **some))
    return found
