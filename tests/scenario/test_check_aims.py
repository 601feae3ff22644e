"""Tests of `fedmem/scenario/check_aims.py`."""

from __future__ import annotations

import pytest

from fedmem.errors import ScenarioError
from tests.tiny import TINY, tiny

POISON = {"kind": "privacy_poison", "aims_at": "typical", "per_client": 2}


def test_targets_come_before_their_poison() -> None:
    tiny(injections=[*TINY["injections"], POISON])
    with pytest.raises(ScenarioError, match=r"'typical'; list the injection of its targets before it"):
        tiny(injections=[POISON, *TINY["injections"]])
    with pytest.raises(ScenarioError, match=r"no earlier injection is called 'other'; use random_pattern or mislabell"):
        tiny(injections=[*TINY["injections"], {**POISON, "aims_at": "other"}])


def test_an_estimator_of_poison_needs_some() -> None:
    scored = {"runs": 8, "estimators": [{"kind": "poisoning"}]}
    with pytest.raises(ScenarioError, match=r"poisoning compares runs with and without poison, but no injection aims"):
        tiny(**scored)
    tiny(injections=[*TINY["injections"], POISON], **scored)
    with pytest.raises(ScenarioError, match="independent trial"):
        tiny(**{**scored, "runs": 16}, twins=2, injections=[*TINY["injections"], POISON])


def test_a_probe_of_backdoors_needs_one() -> None:
    probes = [{"kind": "backdoor_success"}]
    with pytest.raises(ScenarioError, match=r"backdoor_success reads rows with a trigger, but no injection has one"):
        tiny(probes=probes)
    tiny(probes=probes, injections=[{"kind": "backdoor"}])
    with pytest.raises(ScenarioError, match=r"copies that no coin masks|unmasked"):
        tiny(probes=probes, injections=[{"kind": "backdoor", "copies": 2, "unmasked": 1}])


def test_poison_of_images_that_clients_change_is_refused() -> None:
    with pytest.raises(ScenarioError, match="each client sees images in its own way"):
        tiny(injections=[*TINY["injections"], POISON], partition={"kind": "feature_skew"})
    with pytest.raises(ScenarioError, match=r"backdoor has one trigger, but with this partition"):
        tiny(injections=[{"kind": "backdoor"}], partition={"kind": "feature_skew"})
