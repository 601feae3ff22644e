"""Parts that cannot read the data are refused before anything is trained, each with what can."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.errors import ScenarioError
from fedmem.federation import build
from tests.tiny import tiny

TEXTS: dict[str, Any] = {
    "dataset": {"kind": "shakespeare", "clients": 5, "length": 20, "max_chars": 3000},
    "model": {"kind": "char_rnn", "embedding": 4, "hidden": 4},
    "injections": [{"kind": "typical", "per_client": 1}],
    "population": 10,
}
ATTACK = {"kind": "leakage", "attack": {"kind": "grey"}}


def refused(**changes: Any) -> dict[str, str]:
    scenario = tiny(**changes)
    with pytest.raises(ScenarioError) as error:
        build.build(scenario)
    found = {problem.path: problem.message for problem in error.value.problems}
    assert {problem.path: problem.message for problem in build.check(scenario)} == found
    return found


def test_image_models_refuse_texts_and_text_models_images() -> None:
    found = refused(**{**TEXTS, "model": {"kind": "mlp"}})
    expected = (
        "shakespeare has texts, rows of tokens, which mlp does not read; choose from: char_rnn, "
        "huggingface, transformer"
    )
    assert found == {"model.kind": expected}
    for model in ("char_rnn", "transformer"):
        found = refused(model={"kind": model})
        assert found["model.kind"].startswith("synthetic has no texts, but inputs of shape")
        assert ", mlp" in found["model.kind"]
        assert "char_rnn," not in found["model.kind"].partition("choose")[2]


def test_image_components_are_refused_together_for_texts() -> None:
    found = refused(
        **{
            **TEXTS,
            "injections": [{"kind": "random_pattern"}, {"kind": "typical"}, {"kind": "mislabelled"}],
            "partition": {"kind": "feature_skew"},
            "probes": [ATTACK, {"kind": "utility"}],
        }
    )
    assert set(found) == {
        "injections[0].kind",
        "injections[2].kind",
        "partition.kind",
        "probes[0].attack.kind",
    }
    assert found["injections[0].kind"].endswith(
        "choose from: existing, existing_secret, near_duplicate, personal, random_tokens, secret, typical"
    )
    assert found["probes[0].attack.kind"].endswith("choose from: tag")


def test_secrets_are_written_into_texts_alone() -> None:
    (found,) = build.check(tiny(injections=[{"kind": "secret", "template": "the code is {digits:3}"}]))
    assert found.path == "injections[0]"
    assert "secret writes tokens into texts, but inputs have shape" in found.message


def test_fitting_components_have_no_problems() -> None:
    probes = [{"kind": "utility"}, {"kind": "client_gap"}, {"kind": "information"}]
    rebuilt = {"kind": "leakage", "attack": {"kind": "tag"}}
    assert build.check(tiny(**TEXTS, probes=[*probes, rebuilt])) == []
    assert build.check(tiny(probes=[*probes, ATTACK])) == []


def test_signals_of_the_last_layer_refuse_a_frozen_head() -> None:
    changes: dict[str, Any] = {"model": {"kind": "tests.normalised:Normed", "norm": False}}
    signals = [{"kind": "grad_norm"}, {"kind": "last_layer_norm"}]
    found = refused(**changes, signals=signals, freeze=["out.*"])
    assert list(found) == ["signals[1].kind"]
    assert "the last layer, `out`, which is frozen; read grad_norm or el2n" in found["signals[1].kind"]
    assert build.check(tiny(**changes, signals=signals, freeze=["1.*", "out.bias"])) == []
