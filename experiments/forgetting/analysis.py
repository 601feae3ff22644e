"""From finished federations to how much is left after rounds without the owning client, and when learning began."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fedmem.contracts.arrays import FloatArray
from fedmem.results.read import Run
from fedmem.studies.experiment import over_seeds, with_verdict

KINDS = ("once", "four_times", "mislabelled")
"""The kinds of digits that are memorised; ordinary digits are compared with in onsets alone."""

SECRETS = ("secret_four_times", "secret_often")
"""The kinds of texts: four and sixteen copies. Ordinary texts are not in the table."""

MEMORISED, BITS = 0.1, 5.0
"""So much of the secrets with sixteen copies must be in the aggregate at once, else little can fade."""

SINCE = (0, 1, 2, 4, 8)
"""Rounds since the owning client last took part, of the table."""

JUDGED = 4
"""The one of them at which claims are judged, chosen before anything was run."""


def of_run(run: Run) -> pd.DataFrame:
    """The values of one federation: `what`, `kind`, `since`, `level` and `value`.

    - `kept`: memorisation at the aggregate of the round of a use, divided by that of the own model of the client;
    - `left`: memorisation at the aggregate so many rounds later, divided by that of the same uses at once;
    - `score_left`: the same of the score of LiRA;
    - `memory`, `bits`: memorisation by probability and exposure at the aggregate;
    - `owner_memory`, `owner_bits`: those of the model that the client still has;
    - `memory_lost`, `bits_lost`: the value at the use minus that so many rounds later, of the same uses;
    - `onset`, `learning_onset`: participations of the owning client until memory and learning are at half.
    """
    rows = run.measurements
    rows = rows[(rows.scope == "summary") & (rows.place != "others")]
    frames = []
    kept = rows[(rows.metric == "retention") & (rows.of == "decay") & (rows.since == 0)]
    frames.append(kept.assign(what="kept"))
    shares = rows[(rows.metric == "decay_share") & (rows.level == "global")]
    frames.append(shares.assign(what="left"))
    later, change = (
        rows[(rows.metric == name) & (rows.level == "global")].set_index(["subject", "since"]).value
        for name in ("decay_score", "decay_score_change")
    )
    ratio = (later / (later - change)).dropna().reset_index()
    frames.append(ratio.assign(what="score_left", level="global"))
    for metric, name in (("decay", "memory"), ("decay_exposure", "bits")):
        of_secrets = rows[rows.subject.isin(SECRETS)]
        values = of_secrets[of_secrets.metric == metric]
        prefix = values.level.map({"global": "", "local": "owner_"}).astype(str)
        frames.append(values.assign(what=prefix + name, level="global"))
        changes = of_secrets[of_secrets.metric == f"{metric}_change"]
        frames.append(changes.assign(what=f"{name}_lost", value=-changes.value))
    onsets = rows[rows.metric.isin(["onset", "learning_onset"]) & (rows.clock == "participations")]
    frames.append(onsets.assign(what=onsets.metric, since=0))
    whole = pd.concat([frame[["what", "subject", "since", "level", "value"]] for frame in frames], ignore_index=True)
    return whole.rename(columns={"subject": "kind"}).astype({"since": int, "level": str, "kind": str})


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over seeds (Student) of everything that is left, by batches, kind and rounds since."""
    rows = []
    shares = values.what.isin(["kept", "left", "score_left"]) & values.kind.isin([*KINDS, *SECRETS])
    sizes = values.what.isin(["memory", "owner_memory", "bits", "owner_bits"]) & values.kind.isin(SECRETS)
    shown = values[(shares | sizes) & values.since.isin(SINCE)]
    for key, group in shown.groupby(["batches", "what", "kind", "since"]):
        rows.append(dict(zip(("batches", "what", "kind", "since"), key, strict=True)))
        rows[-1] |= over_seeds(group.sort_values("seed").value.to_numpy(dtype=np.float64))
    return pd.DataFrame(rows)


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim: the difference over seeds that is above 0 if it holds, its 95 % interval and the verdict.

    Differences are paired by seed. An onset that never comes has no difference, and the claim is then undefined.
    """

    def series(
        what: str, kind: str, *, since: int = JUDGED, batches: str = "per_run", level: str = "global"
    ) -> FloatArray:
        mask = (values.what == what) & (values.kind == kind) & (values.since == since) & (values.level == level)
        found = values[mask & (values.batches == batches)].set_index("seed").value
        return found.reindex(sorted(values.seed.unique())).to_numpy(dtype=np.float64)

    rows = []

    def claim(text: str, level: str, difference: FloatArray) -> None:
        rows.append({"claim": text, "level": level, **with_verdict(difference)})

    for kind in KINDS:
        claim(f"averaging removes a part of the memory of {kind} at once", "global", 1 - series("kept", kind, since=0))
    for kind in KINDS:
        claim(f"{kind} fades while its client is away", "global", 1 - series("left", kind))
    claim("repetition slows the fading of patterns", "global", series("left", "four_times") - series("left", "once"))
    for kind in KINDS:
        difference = series("score_left", kind, batches="shared") - series("score_left", kind)
        claim(f"without random batches an attack loses less of {kind}", "global", difference)
    for level in ("local", "global"):
        later = series("learning_onset", "mislabelled", since=0, level=level)
        claim(
            "wrong labels are learnt after ordinary digits",
            level,
            later - series("learning_onset", "typical", since=0, level=level),
        )
    for kind in KINDS:
        difference = series("onset", kind, since=0) - series("onset", kind, since=0, level="local")
        claim(f"{kind} is memorised later by the aggregate", "global", difference)
    often = SECRETS[1]
    claim(f"{often} has more than 0.1 in the aggregate at once", "global", series("memory", often, since=0) - MEMORISED)
    claim(f"{often} has more than 5 bits there at once", "global", series("bits", often, since=0) - BITS)
    for kind in SECRETS:
        claim(f"averaging removes a part of the memory of {kind} at once", "global", 1 - series("kept", kind, since=0))
    for kind in SECRETS:
        claim(f"{kind} fades while its client is away", "global", 1 - series("left", kind))
        claim(f"{kind} loses exposure while its client is away", "global", series("bits_lost", kind))
        claim(f"something of {kind} is left", "global", series("memory", kind))
        claim(f"exposure of {kind} is left", "global", series("bits", kind))
    claim("repetition slows the fading of secrets", "global", series("left", often) - series("left", SECRETS[0]))
    for kind in SECRETS:
        difference = series("onset", kind, since=0) - series("onset", kind, since=0, level="local")
        claim(f"{kind} is memorised later by the aggregate", "global", difference)
    return pd.DataFrame(rows)
