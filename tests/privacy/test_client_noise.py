"""Tests of `fedmem/privacy/client_noise.py`."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.errors import ScenarioError
from tests.privacy.coverage_helpers import NOISE
from tests.tiny import sampled, tiny

VOID = [
    ({"strategy": {"kind": "qfedavg"}}, "strategy", "qfedavg reads the losses"),
    (sampled("power_of_choice"), "sampler", "power_of_choice reads the losses"),
    (sampled("oort"), "sampler", "oort reads the losses"),
    (sampled("update_aware"), "sampler", "update_aware reads the norms"),
    (sampled("atypical") | {"injections": [{"kind": "mislabelled", "per_client": 2}]}, "sampler", "what clients hold"),
    ({"sampler": {"kind": "tests.toys:Silent"}}, "sampler", "Silent reads undeclared values"),
    ({"sampler": {"kind": "tests.toys:Together"}}, "sampler", "Together reads undeclared values"),
    (
        {"strategy": {"kind": "tests.privacy.coverage_helpers:Undeclared"}},
        "strategy",
        "Undeclared reads undeclared values",
    ),
    ({"cohort_by": "strategy"}, "cohort_by", "how strategy fedavg would pick clients is not known"),
]


@pytest.mark.parametrize("noisy", [{"defences": NOISE}, {"client": {"kind": "dp_sgd"}}], ids=["defences", "dp_sgd"])
@pytest.mark.parametrize(("changes", "path", "message"), VOID)
def test_readers_of_exact_values_void_the_noise_of_clients(
    noisy: dict[str, Any], changes: dict[str, Any], path: str, message: str
) -> None:
    with pytest.raises(ScenarioError) as error:
        tiny(**{"runs": 2, "injections": [], **changes, **noisy})
    found = [problem.message for problem in error.value.problems if problem.path == path]
    assert any(message in one and "use " in one.lower() for one in found)
    tiny(**{"runs": 2, "injections": [], **changes})
