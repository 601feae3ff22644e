"""Plain classes and functions of a user's as components, and what is said where they cannot be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmem.contracts import families
from fedmem.errors import ScenarioError
from fedmem.scenario import catalogue
from tests.scenario.catalogue_helpers import problems

MINE = """
from dataclasses import dataclass
from typing import TYPE_CHECKING
from torch import nn
if TYPE_CHECKING:
    from nowhere import Missing

class Net(nn.Module):
    stackable = True
    def __init__(self, input_shape, num_classes, *, depth: int, width: int = 8, act=nn.ReLU, rates=[0.5]):
        super().__init__()
        self.out = nn.Linear(input_shape[0], num_classes)
        self.got = (input_shape, num_classes, depth, width, rates)
        rates.append(1.0)

def plain(width=3, names: "Missing" = None):
    return nn.Linear(2, width)

def load(rng, rows: int = 4):
    return rows

class Loader:
    def __init__(self, path): ...
    def load(self): ...

class Sampler:
    def __init__(self, size): ...
    def cohort(self, round_number, history, rng): ...

@dataclass(frozen=True, kw_only=True)
class Short:
    def cohort(self, history): ...

def build(build=1): ...
number = 3
"""


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module `mine_own` in the search path."""
    (tmp_path / "mine_own.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("mine_own", None)


def test_a_module_class_is_a_model_with_its_arguments() -> None:
    built = catalogue.build("model", {"kind": "mine_own:Net", "depth": 2})
    network = built.build((5,), 3)
    assert network.got[:4] == ((5,), 3, 2, 8)
    assert built.stackable
    assert families.kind_of(built) == "mine_own:Net"
    assert hash(built) == hash(catalogue.build("model", {"kind": "mine_own:Net", "depth": 2}))
    dumped = catalogue.dump(built)
    assert dumped["rates"] == [0.5], "the class changed its argument, not the scenario"
    assert catalogue.build("model", dumped) == built


def test_what_the_scenario_gives_is_not_filled() -> None:
    built = catalogue.build("model", {"kind": "mine_own:Net", "depth": 2, "num_classes": 7, "input_shape": [4]})
    assert built.build((5,), 3).got[:2] == ((4,), 7)


def test_a_function_is_a_model_and_plain_values_pass() -> None:
    built = catalogue.build("model", {"kind": "mine_own:plain", "width": 4})
    assert built.build((2,), 4).out_features == 4
    assert not built.stackable


@pytest.mark.parametrize(
    ("family", "given", "path", "says"),
    [
        ("model", {"kind": "mine_own:Net"}, "depth", "width: int = 8, act (set in the code)"),
        ("model", {"kind": "mine_own:Net", "depth": 1, "widht": 2}, "widht", "(did you mean 'width'?)"),
        ("model", {"kind": "mine_own:Net", "depth": "x"}, "depth", "should be a whole number, got 'x'"),
        ("model", {"kind": "mine_own:build"}, "kind", "'build' of mine_own:build cannot be a field"),
        ("model", {"kind": "mine_own:Loader"}, "kind", "or be a torch.nn.Module"),
        ("model", {"kind": "mine_own:number"}, "kind", "has no class 'number'"),
        ("model", {"kind": "mine_own.py:Net"}, "kind", "without .py"),
        ("dataset", {"kind": "mine_own:Loader"}, "path", "mine_own:Loader takes path (must be given)"),
        ("dataset", {"kind": "mine_own:load", "rng": 1}, "rng", "takes rows: int = 4"),
        ("sampler", {"kind": "mine_own:Sampler"}, "kind", "cohort(round_number, history, rng)"),
        ("sampler", {"kind": "mine_own:Short"}, "kind", "cohort(history) should take (round_number, history, rng)"),
        ("sampler", {"kind": "mine_own:load"}, "kind", "is a function, but a sampler of your own is a class"),
    ],
)
def test_mistakes_name_arguments_and_remedy(family: str, given: dict[str, object], path: str, says: str) -> None:
    assert says in problems(family, given)[path]


def test_missing_arguments_name_the_line_of_the_definition() -> None:
    with pytest.raises(ScenarioError, match=r"mine_own\.py:8\)"):
        catalogue.build("model", {"kind": "mine_own:Net"})
