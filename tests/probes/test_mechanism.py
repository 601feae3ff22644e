"""Direct tests of mechanisms: each broken one is found, and healthy ones are left alone."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.errors import ScenarioError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.privacy import mechanism_alarms
from tests.broken_mechanisms import BROKEN
from tests.probes.mechanism_helpers import PRIVATE, SERVERS, made, outcome, release

CASES = [(kind, name) for kind in SERVERS for name in ("healthy", *BROKEN[:-1])]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_broken_noise_of_the_server_is_found(kind: str, name: str) -> None:
    rounds = 8 if kind == "dp_ftrl" else 3
    found, _ = outcome(made(strategy=SERVERS[kind], rounds=rounds), name)
    assert bool(found) == (name != "healthy")
    assert all("mechanism, global: " in alarm for alarm in found)


@pytest.mark.parametrize(
    ("name", "executor"),
    [
        *((name, "one_by_one") for name in ("healthy", *BROKEN)),
        *((name, "stacked") for name in ("healthy", "noise_4", "clip_10")),
    ],
)
def test_broken_steps_of_clients_are_found(name: str, executor: str) -> None:
    scenario = made(client=PRIVATE, rounds=2, model={"kind": "logistic"}, speed={"executor": executor, "workers": 1})
    found, _ = outcome(scenario, name)
    assert bool(found) == (name != "healthy")
    assert all("mechanism, local: " in alarm for alarm in found)


def test_watching_changes_nothing() -> None:
    scenario = made(client=PRIVATE)
    seen, unseen = (simulate(scenario, build(scenario), watch=watch) for watch in (True, False))
    for one, other in zip(seen.params, unseen.params, strict=True):
        assert all(bool((one[name] == other[name]).all()) for name in one)


def test_probe_without_stated_noise_or_global_level_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"states noise that could be tested; use dp_fedavg"):
        made()
    with pytest.raises(ScenarioError, match=r"global must be observed for probe mechanism"):
        made(strategy=SERVERS["dp_fedavg"], observe={"levels": ["local"]})


# --- the statistics ---------------------------------------------------------------------------------------------------


def test_the_sum_of_contributions_is_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    made = release(rng, weights=np.linspace(0, 1, 6), canaries=rng.standard_normal(500), canary_length=3.0)
    expected = np.zeros(500)
    whole = np.zeros(500)
    for weight, one in zip(np.linspace(0, 1, 6), made.contributions, strict=True):
        expected += weight * one * min(1.0, 1.0 / np.sqrt((one**2).sum()))
        whole += weight * one
    assert made.canaries is not None
    np.testing.assert_allclose(made.clipped_sum, expected + made.canaries)
    excess = whole + 3 * made.canaries - made.clipped_sum
    np.testing.assert_allclose(made.directions["excess"], excess / np.linalg.norm(excess))


def test_summaries_are_at_the_end_and_of_all_tests() -> None:
    _, rows = outcome(made(client=PRIVATE), "healthy")
    own = [row for row in rows if row.reading.metric == mechanism_alarms.METRIC]
    assert {row.round for row in own} == {None}
    whole = [row for row in own if row.reading.labels.get("test") == "all"]
    assert [row.reading.n for row in whole] == [len(own) - 1]
    smallest = min(row.reading.value for row in own if row not in whole)
    assert whole[0].reading.value == pytest.approx(min(1.0, smallest * (len(own) - 1)))
