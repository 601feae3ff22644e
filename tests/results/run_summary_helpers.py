"""A summary with the values that are hardest to store."""

from __future__ import annotations

import hashlib
import math

from fedmem.results.run_summary import (
    Finding,
    GuaranteeSummary,
    Key,
    KindSummary,
    Leak,
    Measured,
    ModelsSummary,
    Place,
    RunSummary,
    Verdict,
)

KEY = Key(metric="auc", level="local", subject="pin <b>", labels={"attack": "lira", "fpr": 0.01})
VALUE = Measured(value=0.9, low=0.8, high=0.95, n=60, null=0.5, saturated=True, keys=(KEY,))
SUMMARY = RunSummary(
    name="naïve",
    id="0123456789ab",
    headline="naïve: 8 runs of 2 rounds, 3 clients, 60 audit examples, each in half of the runs",
    components={"dataset": "digits", "strategy": "fedavg"},
    seed=0,
    versions={"fedmem": "0.1.0"},
    commit="",
    measurements_sha256=hashlib.sha256(b"numbers").hexdigest(),
    alarms=("epsilon is above its guarantee",),
    warnings=(),
    failures=2,
    client_rounds=48,
    verdicts=tuple(
        Verdict(
            level=level,
            text="A sentence.",
            short="It.",
            memorised=("pin <b>",),
            detectable=(),
            not_significant=(),
            undefined=(),
            keys=(KEY,),
        )
        for level in ("local", "global")
    ),
    kinds=(
        KindSummary(
            kind="pin <b>",
            examples=60,
            findings=(
                Finding(
                    shows="detectable",
                    metric="auc",
                    title="LiRA AUC",
                    unit="",
                    digits=3,
                    labels={"attack": "lira", "fpr": 0.01, "clients": 2, "all": True},
                    local=VALUE,
                    aggregate=None,
                    retention=Measured(value=math.nan, low=math.nan, high=math.nan, n=60, null=0.0, keys=(KEY,)),
                ),
            ),
        ),
    ),
    models=(
        ModelsSummary(metric="test_accuracy", title="test accuracy", unit="", digits=3, local=VALUE, aggregate=VALUE),
    ),
    leaks=(
        Leak(
            source="leakage",
            view="the aggregate",
            is_sent=True,
            leaking=("pin <b>",),
            closer=(),
            not_significant=(),
            uncompared=(),
            keys=(KEY,),
        ),
    ),
    guarantees=(
        GuaranteeSummary(
            part="strategy",
            against="server",
            unit="client",
            adjacency="zero_out",
            epsilon=math.inf,
            delta=1e-5,
        ),
    ),
    audits=(),
    not_significant=(),
    below=(),
    undefined=(Place(kind="pin <b>", title="LiRA AUC", level="retention"),),
    limits=("The attacks are lower limits.",),
)
