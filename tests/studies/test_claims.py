"""Claims over seeds: signs, nulls, levels, incomplete seeds, Holm's correction, and a null simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from fedmem.estimation.statistics import holm
from fedmem.studies.claims import Claim, claim_table


def made(*, seeds: int = 5, **values: float) -> pd.DataFrame:
    """One value of each quantity at both levels, that of the aggregate half as large, with noise over seeds."""
    rng = np.random.default_rng(0)
    rows = [
        {"data": "a", "what": what, "level": level, "seed": seed, "value": value * share + rng.normal(0, 0.01)}
        for seed in range(seeds)
        for what, value in values.items()
        for level, share in (("local", 1.0), ("global", 0.5))
    ]
    return pd.DataFrame(rows)


X = Claim(words="x is above 0", more={"what": "x"})


def verdicts(values: pd.DataFrame, claim: Claim) -> list[str]:
    return claim_table(values, [claim]).verdict.tolist()


def test_sign_and_null_decide_the_verdict() -> None:
    assert verdicts(made(x=0.5), X) == ["holds", "holds"]
    assert verdicts(made(x=-0.5), X) == ["contradicted", "contradicted"]
    assert verdicts(made(x=0.0), X) == ["not significant", "not significant"]
    assert verdicts(made(x=-0.5), Claim(words="", more={"what": "x"}, sign=-1.0)) == ["holds", "holds"]
    assert verdicts(made(x=0.4), Claim(words="", more={"what": "x"}, null=0.3)) == ["holds", "contradicted"]


def test_values_are_compared_seed_by_seed() -> None:
    values = made(x=0.5, y=0.3)
    found = claim_table(values, [Claim(words="", more={"what": "x"}, less={"what": "y"})])
    local = values[values.level == "local"].pivot_table(index="seed", columns="what", values="value")
    assert found["mean"].iloc[0] == pytest.approx((local.x - local.y).mean())
    assert verdicts(values, Claim(words="", more={"what": "y"}, less={"what": "x"})) == ["contradicted"] * 2
    # an offset of each seed goes out of the difference
    shifted = values.assign(value=values.value + 10.0 * values.seed)
    assert verdicts(shifted, Claim(words="", more={"what": "x"}, less={"what": "y"})) == ["holds", "holds"]


def test_levels_can_be_compared() -> None:
    more = Claim(words="", more={"what": "x", "level": "local"}, less={"level": "global"}, levels=("global",))
    found = claim_table(made(x=0.5), [more])
    assert found.level.tolist() == ["global"]
    assert found["mean"].iloc[0] == pytest.approx(0.25, abs=0.02)


def test_a_seed_without_a_value_leaves_the_claim_undefined() -> None:
    values = made(x=0.5, y=0.1)
    for broken in (
        values.assign(value=values.value.where((values.seed != 2) | (values.what != "x"))),
        values[(values.seed != 2) | (values.what != "x")],
    ):
        found = claim_table(broken, [X])
        assert found.verdict.tolist() == ["undefined", "undefined"]
        assert found["mean"].isna().all()
        assert found.holm.isna().all()
    assert verdicts(made(x=0.5, seeds=1), X) == ["undefined", "undefined"]


def test_equal_differences_are_no_certainty() -> None:
    assert verdicts(made(x=0.5).assign(value=0.5), X) == ["undefined", "undefined"]


def test_claims_without_values_have_no_row() -> None:
    absent = Claim(words="", more={"what": "z"})
    less = Claim(words="", more={"what": "x"}, less={"what": "z"})
    assert claim_table(made(x=0.5), [absent, less]).empty
    assert list(claim_table(made(x=0.5), [absent])) == list(claim_table(made(x=0.5), [X]))


def test_several_values_of_a_seed_are_an_error() -> None:
    with pytest.raises(ValueError, match="name further columns"):
        claim_table(made(x=0.5, y=0.5), [Claim(words="", more={"data": "a"})])


def test_p_is_adjusted_for_all_rows_of_the_table() -> None:
    values = pd.concat([made(x=0.5, y=0.006), made(x=0.2, y=0.0).assign(data="b")])
    claims = [X, Claim(words="y", more={"what": "y"})]
    found = claim_table(values, claims)
    assert len(found) == 8
    assert found.data.tolist() == ["a"] * 4 + ["b"] * 4
    np.testing.assert_allclose(found.holm, holm(found.p.to_numpy()))
    assert (found.holm >= found.p).all()
    assert math.isclose(found.holm.min(), 8 * found.p.min())


def test_without_an_effect_five_percent_are_significant() -> None:
    rng = np.random.default_rng(1)
    count = 400
    rows = {"data": np.repeat(np.arange(count), 5), "seed": np.tile(np.arange(5), count)}
    values = pd.DataFrame({**rows, "what": "x", "level": "local", "value": rng.normal(size=5 * count)})
    found = claim_table(values, [X])
    assert 0.02 < (found.verdict != "not significant").mean() < 0.08
    assert ((found.p < 0.05) == (found.verdict != "not significant")).all()
