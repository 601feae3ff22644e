"""Every probe in the folder keeps the contract of `components.Probe`."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import fedmem.probes
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.attacks.kkt import Kkt
from fedmem.attacks.linear_layer import LinearLayer
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import Measurement, Reading
from fedmem.contracts.probe import Probe
from tests.lab import Lab, measured
from tests.language import text_federation

NESTED: dict[str, dict[str, Any]] = {
    "leakage": {"attack": InvertingGradients(steps=3)},
    "informed": {"levels": ("local",), "candidates": 3, "shadows": 9, "max_examples": 1},
    "stationary": {"attack": LinearLayer(), "max_examples": 1},
    "trained_weights": {"attack": Kkt(steps=3, restarts=1)},
    "verbatim": {"prefixes": (2,)},
    "copying": {"kinds": ("secret",), "samples": 5},
    "imprint": {"bins": 16},
}
"""What a probe needs that has no default, by kind."""

FEDERATIONS = dict.fromkeys(("Extraction", "Verbatim", "MaskedField", "Copying", "ClientResemblance"), text_federation)
"""Probes that read texts, by class; all others read pictures."""

OVER_RUNS = {
    "Copying": {"data_copying_gain", "authenticity_gain"},
    "ClientResemblance": {"resemblance_gain", "verifier_accuracy"},
    "ActivationMembership": {"active_auc", "active_auc.p"},
    "GradientAscent": {"active_auc", "active_auc.p"},
    "CanaryClients": {"epsilon_one_shot", "epsilon_one_shot.ceiling"},
    "Information": {"usable_information"},
    "Mechanism": {"mechanism_p"},
    "UpdateSurvival": {"survival_gain"},
}
"""Metrics that exist only over several runs, by class."""

KINDS = [module.name for module in pkgutil.iter_modules(fedmem.probes.__path__) if not module.name.startswith("_")]


def public_class(kind: str) -> type[Any]:
    module = importlib.import_module(f"fedmem.probes.{kind}")
    classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
    (found,) = [c for c in classes if not c.__name__.startswith("_")]
    return found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def probe(kind: str) -> Probe:
    built = public_class(kind)(**NESTED.get(kind, {}))
    assert isinstance(built, Probe)
    return built


def lab_for(probe: Probe) -> Lab:
    build = FEDERATIONS.get(type(probe).__name__)
    return Lab(federation=build()) if build else Lab()


def occasions(lab: Lab) -> list[list[Transition]]:
    """Local and global transitions of a round, and the initial model."""
    local = lab.local()
    initial = lab.federation.initial
    everywhere = lab.aggregated(local)
    start = [
        dataclasses.replace(t, round=0, before=initial, sent=initial, kept=initial, clients=()) for t in everywhere
    ]
    return [start, local, everywhere]


def shown(pairs: Sequence[tuple[Transition, Reading]]) -> list[tuple[int, str]]:
    """Which transition each reading is about, and the reading: texts of models would take most of the time."""
    return [(id(about), repr(reading)) for about, reading in pairs]


def test_contract_test_walks_the_shipped_probes() -> None:
    assert {"leakage", "utility"} <= set(KINDS)


def test_component_is_a_frozen_keyword_only_documented_dataclass(kind: str) -> None:
    component = public_class(kind)
    parameters = component.__dataclass_params__
    assert parameters.frozen
    assert all(parameter.kw_only for parameter in dataclasses.fields(component))
    assert component.__doc__
    for parameter in dataclasses.fields(component):
        assert f"- `{parameter.name}`:" in component.__doc__, f"{kind} does not explain {parameter.name}"


def test_probe_declares_its_levels_and_no_interval(probe: Probe) -> None:
    assert probe.every is None
    assert set(probe.levels) <= {"local", "sum", "global"}


def test_readings_are_about_what_was_shown_and_repeat_themselves(probe: Probe) -> None:
    lab = lab_for(probe)
    for transitions in occasions(lab):
        first, second = probe.observe(transitions, lab), probe.observe(transitions, lab)
        assert shown(first) == shown(second)
        for about, reading in first:
            assert any(about is transition for transition in transitions)
            assert isinstance(reading.value, float)
            assert reading.metric
            assert reading.n >= 0
            assert not (reading.low > reading.high)


def test_readings_of_a_run_do_not_depend_on_other_runs(probe: Probe) -> None:
    together, apart = lab_for(probe), lab_for(probe)
    for transitions in occasions(together):
        whole = probe.observe(transitions, together)
        shards = [[t for t in transitions if t.run == run] for run in (0, 1)]
        parts = [reading for shard in shards for reading in probe.observe(shard, apart)]
        by_run = sorted(whole, key=lambda pair: pair[0].run)
        assert shown(by_run) == shown(parts)
    assert together.kept.keys() == apart.kept.keys()
    for name, array in together.kept.items():
        np.testing.assert_array_equal(array, apart.kept[name])


def test_watching_changes_nothing(probe: Probe) -> None:
    lab = lab_for(probe)
    for transitions in occasions(lab):
        before = [copy.deepcopy((t.before, t.sent, t.kept)) for t in transitions]
        initial, store = copy.deepcopy(lab.federation.initial), lab.federation.store.inputs.copy()
        state = torch.random.get_rng_state()
        probe.observe(transitions, lab)
        assert torch.equal(torch.random.get_rng_state(), state), "a probe drew from the global generator"
        assert (lab.federation.store.inputs == store).all()
        for model in (dict(lab.federation.model.named_parameters()), lab.federation.initial):
            assert all(torch.equal(initial[name], value) for name, value in model.items())
        for transition, copies in zip(transitions, before, strict=True):
            for params, expected in zip((transition.before, transition.sent, transition.kept), copies, strict=True):
                assert all(torch.equal(params[name], expected[name]) for name in expected)


def test_summaries_are_of_its_own_rows(probe: Probe) -> None:
    lab = lab_for(probe)
    rows: list[Measurement] = []
    for transitions in occasions(lab):
        rows += measured(probe.observe(transitions, lab), round_number=transitions[0].round)
    for summary in probe.summarise(rows, 0):
        assert (summary.run, summary.client, summary.source) == (None, -1, "probe")
        assert summary.round in {None, *(row.round for row in rows)}
        metric = summary.reading.metric.removesuffix(".difference")
        assert metric in {row.reading.metric for row in rows} | OVER_RUNS.get(type(probe).__name__, set())
    assert list(probe.summarise([], 0)) == []
