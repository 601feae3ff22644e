"""Parts that cannot read the data are refused before anything is trained, each with what can."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.ragged import Ragged
from fedmem.errors import ComponentError, ScenarioError
from fedmem.federation import build
from fedmem.federation.compatibility import require_base_rows
from fedmem.probes.client_resemblance import ClientResemblance
from fedmem.probes.utility import Utility
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


def test_probes_that_read_numbers_refuse_texts() -> None:
    found = refused(**TEXTS, probes=[{"kind": "utility"}, {"kind": "informed"}])
    assert list(found) == ["probes[1].kind"]
    assert found["probes[1].kind"].startswith("informed reads inputs as numbers, but shakespeare has texts")
    assert build.check(tiny(probes=[{"kind": "informed"}])) == []


@pytest.mark.parametrize("kind", ["imprint", "trap_weights", "activation_membership"])
def test_dishonest_servers_refuse_other_first_layers(kind: str) -> None:
    probes = [{"kind": "utility"}, {"kind": kind}]
    client = {"kind": "sgd", "lr": 0.1, "steps": 1, "batch_size": 8}
    for model in ({"kind": "logistic"}, {"kind": "mlp", "hidden": [4], "activation": "tanh"}):
        found = refused(model=model, probes=probes, client=client, population=20)
        assert list(found) == ["probes[1]"]
        assert found["probes[1]"].startswith(f"{kind} sends a client a first layer that is linear")
        assert "Use a model such as {kind: mlp, hidden: [64]}, or leave" in found["probes[1]"]
    mlp = {"kind": "mlp", "hidden": [4]}
    assert build.check(tiny(model=mlp, probes=probes, client=client, population=20)) == []
    found = refused(model=mlp, probes=probes, client=client, population=0)
    assert list(found) == ["probes[1]"]
    assert "Set population: 200, or leave" in found["probes[1]"]
    own = {"kind": "fedper", "lr": 0.1, "steps": 1, "batch_size": 8}
    assert "stays with the clients" in refused(model=mlp, probes=probes, client=own, population=20)["probes[1]"]


def test_bins_beyond_units_and_population_are_refused() -> None:
    changes: dict[str, Any] = {
        "model": {"kind": "mlp", "hidden": [8]}, "client": {"kind": "sgd", "lr": 0.1, "steps": 1, "batch_size": 8},
    }  # fmt: skip
    for bins, population, limit in ((9, 20, 8), (8, 5, 6), (None, 6, 7)):
        found = refused(**changes, probes=[{"kind": "imprint", "bins": bins}], population=population)
        assert list(found) == ["probes[0].bins"]
        assert f"Set bins to at most {limit}" in found["probes[0].bins"]
    assert build.check(tiny(**changes, probes=[{"kind": "imprint", "bins": 6}], population=5)) == []


def test_checks_of_first_layers_leave_the_generator_as_it_was() -> None:
    import torch

    client = {"kind": "sgd", "lr": 0.1, "steps": 1, "batch_size": 8}
    model = {"kind": "tests.normalised:Normed", "norm": False, "p": 0.5}
    scenario = tiny(model=model, client=client, probes=[{"kind": "imprint"}], population=20)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    build.check(scenario)
    assert torch.equal(torch.rand(4), expected)


def test_clients_without_base_rows_are_found_before_training() -> None:
    rows = [np.arange(2), np.arange(0), np.arange(1)]
    bare = Ragged(rows=np.concatenate(rows).astype(np.int64), starts=np.array([0, 2, 2, 3]))
    reading: Any = SimpleNamespace(probes=(Utility(), ClientResemblance()))
    with pytest.raises(ComponentError, match=r"reads base rows of every client, but client 1 has none. Use fewer"):
        require_base_rows(reading, bare)
    require_base_rows(SimpleNamespace(probes=(Utility(),)), bare)  # type: ignore[arg-type]
    require_base_rows(reading, Ragged(rows=np.arange(3), starts=np.array([0, 2, 3])))
