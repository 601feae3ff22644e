"""Tests of `fedmem/contracts/flower_strategy_adapter.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedmem.contracts.flower_strategy_adapter import FlowerStrategyAdapter, parameters
from fedmem.errors import ComponentError
from fedmem.scenario import catalogue
from tests.scenario.catalogue_helpers import THEIRS, problems


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of somebody else's, importable as `theirs`."""
    (tmp_path / "theirs.py").write_text(THEIRS)
    (tmp_path / "broken.py").write_text("import there_is_no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "theirs"
    sys.modules.pop("theirs", None)


def test_flower_strategy_trains_everyone_the_sampler_picked() -> None:
    made = catalogue.build("strategy", {"kind": "flwr.serverapp.strategy:FedAdam", "eta": 0.5}).make(3)
    assert (made.fraction_train, made.fraction_evaluate) == (1.0, 0.0)
    assert (made.min_train_nodes, made.min_evaluate_nodes, made.min_available_nodes) == (1, 0, 1)
    assert made.eta == 0.5


def test_yaml_overrides_the_defaults_of_a_flower_strategy() -> None:
    mapping = {"kind": "flwr.serverapp.strategy:FedAvg", "fraction_train": 0.5, "fraction_evaluate": 0.5}
    built = catalogue.build("strategy", mapping)
    made = built.make(3)
    assert (made.fraction_train, made.min_evaluate_nodes) == (0.5, 1)
    assert catalogue.dump(built) == mapping
    assert catalogue.build("strategy", mapping) == built
    assert hash(catalogue.build("strategy", mapping)) == hash(built)


def test_flower_strategy_makes_a_new_object_each_time() -> None:
    built = catalogue.build("strategy", {"kind": "flwr.serverapp.strategy:FedAvg"})
    assert built.make(1) is not built.make(1)


def test_unknown_parameter_of_a_flower_strategy_lists_all() -> None:
    said = problems("strategy", {"kind": "flwr.serverapp.strategy:FedProx", "proximal_nu": 1})["proximal_nu"]
    assert "did you mean 'proximal_mu'?" in said
    assert "fraction_train" in said


def test_parameters_follow_keywords_to_the_class_that_takes_them(theirs: str) -> None:
    from flwr.serverapp.strategy import FedAvg

    class Inner(FedAvg):
        def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    class Plain:
        pass

    found, others = parameters(Inner)
    assert list(found)[:2] == ["alpha", "fraction_train"]
    assert not any(found.values())
    assert not others
    assert parameters(Plain) == ({}, False)
    assert parameters(catalogue.load("strategy", "theirs:Mine")) == ({"mu": True}, True)


def test_a_strategy_that_takes_any_keyword_gets_the_defaults(theirs: str) -> None:
    assert set(problems("strategy", {"kind": "theirs:Mine"})) == {"mu"}
    made = catalogue.build("strategy", {"kind": "theirs:Mine", "mu": 0.1, "extra": 2}).make(1)
    assert made.kwargs["min_train_nodes"] == 1
    assert made.kwargs["extra"] == 2


def test_strategy_that_cannot_be_made_is_an_error_with_a_reason() -> None:
    stock = FlowerStrategyAdapter(kind="flwr.serverapp.strategy:FedAvg", fields={"weighted_by": "x"})
    with pytest.raises(ComponentError, match="unexpected keyword argument 'weighted_by'"):
        stock.make(1)


def test_exception_in_make_is_an_error_with_its_type(theirs: str) -> None:
    with pytest.raises(ComponentError, match=r"strategy: theirs:Refuses cannot be made.*RuntimeError: out of luck"):
        catalogue.build("strategy", {"kind": "theirs:Refuses"}).make(1)
