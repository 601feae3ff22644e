"""The claims of the experiment, in each federation, written before the runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from experiments.unlearning.analysis import AFTER, AT_ONCE, FORGOTTEN, RETAINED
from experiments.unlearning.client import OF_CLIENT
from fedmem.contracts.arrays import FloatArray
from fedmem.studies.experiment import with_verdict

INEXACT = ("fine_tune", "gradient_ascent", "neg_grad_plus", "pga", "fed_eraser")
"""The methods that do not train from the beginning again."""

EQUAL, EQUAL_BITS = 0.05, 1.0
"""Memorisation and exposure within which two values count as equal, chosen before anything was run."""

PLACES = ("global", "local", "others")


@dataclass(frozen=True)
class Claims:
    """Claims about one federation: `series` reads a value over seeds, `claim` adds a row."""

    federation: str
    values: pd.DataFrame
    rows: list[dict[str, object]] = field(default_factory=list)

    def series(
        self,
        method: str,
        what: str,
        *,
        kind: str = FORGOTTEN,
        when: str = AFTER,
        place: str = "global",
        attack: str = "",
    ) -> FloatArray:
        """A value over seeds, NaN where a seed has none."""
        values = self.values
        mask = (values.method == method) & (values.what == what) & (values.when == when) & (values.kind == kind)
        found = values[mask & (values.place == place) & (values.attack == attack)].set_index("seed").value
        return found.reindex(sorted(values.seed.unique())).to_numpy(dtype=np.float64)

    def claim(self, text: str, place: str, difference: FloatArray) -> None:
        """One row, with the verdict on whether the difference is above 0."""
        self.rows.append({"federation": self.federation, "claim": text, "place": place, **with_verdict(difference)})

    def near_zero(self, text: str, values: FloatArray, limit: float, name: str) -> None:
        """Two rows: whether a value lies between minus and plus a limit."""
        self.claim(f"{text} less than {name}", "global", limit - values)
        self.claim(f"{text} more than -{name}", "global", values + limit)

    def damage(self, method: str, name: str) -> None:
        """Damage by a method, at once and after the rounds."""
        for when in (AT_ONCE, AFTER):
            change = self.series(method, "change", kind=RETAINED, when=when)
            self.claim(f"{name} damages retained patterns {when}", "global", -change)
            accuracy = self.series(method, "accuracy_change", kind="", when=when)
            self.claim(f"{name} costs accuracy {when}", "global", -accuracy)

    def dearer_than_fine_tuning(self, method: str) -> None:
        """Claim that test accuracy after the rounds is below that after fine-tuning."""
        change = [self.series(each, "accuracy_change", kind="") for each in ("fine_tune", method)]
        self.claim(f"accuracy is below that of fine-tuning: {method}", "global", change[0] - change[1])

    def attacks(self, method: str) -> None:
        """Claim that U-LiRA finds more than an attack with a population."""
        distance = [np.abs(self.series(method, "auc", attack=attack) - 0.5) for attack in ("lira", "attack_p")]
        self.claim(f"U-LiRA finds more than a population: {method}", "global", distance[0] - distance[1])


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim: the difference over seeds that is above 0 if it holds, its 95 % interval and the verdict."""
    rows = []
    for federation, add in _ADD.items():
        claims = Claims(federation, values[values.federation == federation])
        add(claims)
        rows += claims.rows
    return pd.DataFrame(rows)


def _examples(claims: Claims) -> None:
    """Wrong labels of digits."""
    series, claim = claims.series, claims.claim
    claim("wrong labels are memorised: above 0.7", "global", series("fine_tune", "before") - 0.7)
    claim("retraining leaves less than 0.05", "global", EQUAL - series("retrain", "residual"))
    claim("retraining leaves more than -0.05", "global", series("retrain", "residual") + EQUAL)
    kept = series("no_op", "residual") - series("no_op", "before")
    claim("training on adds less than 0.05", "global", EQUAL - kept)
    claim("training on removes less than 0.05", "global", kept + EQUAL)
    for when in (AT_ONCE, AFTER):
        claim(f"gradient ascent overshoots {when}", "global", -series("gradient_ascent", "residual", when=when))
        change = series("gradient_ascent", "change", kind=RETAINED, when=when)
        claim(f"gradient ascent damages retained patterns {when}", "global", -change)
        accuracy = series("gradient_ascent", "accuracy_change", kind="", when=when)
        claim(f"gradient ascent costs accuracy {when}", "global", -accuracy)
    for method in (*INEXACT, "retrain"):
        claims.attacks(method)
    for method in INEXACT:
        for place in PLACES:
            claim(f"something is left: {method}", place, series(method, "residual", place=place))
    for method in INEXACT[1:]:
        claims.dearer_than_fine_tuning(method)


def _client(claims: Claims) -> None:
    """A whole client with digits."""
    series, claim = claims.series, claims.claim
    methods = tuple(method for method in INEXACT if method != "neg_grad_plus")
    for kind in OF_CLIENT[:2]:
        claim(f"the aggregate memorises {kind}: above 0.7", "global", series("fine_tune", "before", kind=kind) - 0.7)
    for kind in OF_CLIENT:
        claims.near_zero(f"retraining leaves of {kind}", series("retrain", "residual", kind=kind), EQUAL, "0.05")
    for kind in OF_CLIENT[:2]:
        removed = series("no_op", "before", kind=kind) - series("no_op", "residual", kind=kind)
        claim(f"training on removes less than 0.05 of {kind}", "global", EQUAL - removed)
    for method in ("gradient_ascent", "pga"):
        claims.damage(method, method)
    for method in methods:
        for kind in OF_CLIENT[:2]:
            for place in ("global", "others"):
                claim(f"{kind} is left: {method}", place, series(method, "residual", kind=kind, place=place))
    for method in (*methods, "retrain"):
        claim(f"runs that had the client are found: {method}", "global", series(method, "auc", kind="client") - 0.5)
    for method in methods[1:]:
        claims.dearer_than_fine_tuning(method)


def _texts(claims: Claims) -> None:
    """Secrets in texts."""
    series, claim = claims.series, claims.claim
    claim("secrets are memorised: above 0.2", "global", series("fine_tune", "before") - 0.2)
    claim("secrets are exposed: above 5 bits", "global", series("no_op", "kept_bits") - 5)
    claims.near_zero("retraining leaves", series("retrain", "residual"), EQUAL, "0.05")
    claims.near_zero("retraining leaves", series("retrain", "bits"), EQUAL_BITS, "1 bit")
    kept = series("no_op", "residual") - series("no_op", "before")
    claim("training on removes less than 0.05", "global", kept + EQUAL)
    for when in (AT_ONCE, AFTER):
        for what, name in (("residual", "probability"), ("bits", "bits")):
            value = series("gradient_ascent", what, when=when)
            claim(f"gradient ascent overshoots in {name} {when}", "global", -value)
    claims.damage("gradient_ascent", "gradient ascent")
    for method in ("fine_tune", "gradient_ascent", "retrain"):
        claims.attacks(method)
    for method in ("fine_tune", "gradient_ascent"):
        for place in PLACES:
            claim(f"probability is left: {method}", place, series(method, "residual", place=place))
            claim(f"exposure is left: {method}", place, series(method, "bits", place=place))
    claims.dearer_than_fine_tuning("gradient_ascent")


_ADD: Mapping[str, Callable[[Claims], None]] = {"examples": _examples, "client": _client, "texts": _texts}
