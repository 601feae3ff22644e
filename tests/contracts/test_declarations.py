"""Tests of `fedmem/contracts/declarations.py`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from fedmem.errors import ScenarioError
from fedmem.scenario.catalogue import build
from fedmem.strategies.fedavg import FedAvg
from tests.tiny import tiny


class Misspelt(FedAvg):
    """Means `min_cohort`, which would be ignored without a word."""

    min_cohrt: ClassVar[int] = 3


class Helpful(FedAvg):
    """Has a public method that nobody asks for."""

    def median_of(self, values: Any) -> Any:
        return values


class Wordy(FedAvg):
    """Declares text where a truth value belongs."""

    noisy: ClassVar[Any] = "yes"


@dataclass(frozen=True, kw_only=True)
class Broken(FedAvg):
    """Cannot say what it declares."""

    @property
    def reads(self) -> tuple[str, ...]:
        raise AttributeError("no such thing")


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Misspelt, r"public name 'min_cohrt', which is no member of a strategy \(did you mean 'min_cohort'\?\)"),
        (Helpful, "'median_of'.*write _median_of"),
        (Wordy, "Wordy declares noisy = 'yes', should be true or false"),
        (Broken, "Broken cannot say its reads: AttributeError: no such thing"),
    ],
)
def test_undeclared_and_mistyped_names_are_refused(cls: type, message: str) -> None:
    """From YAML and from Python: a slip would otherwise mean the default, such as no privacy noise."""
    with pytest.raises(ScenarioError, match=message):
        build("strategy", {"kind": f"{__name__}:{cls.__name__}"})
    whole = tiny()
    values = {name: getattr(whole, name) for name in type(whole).model_fields}
    with pytest.raises(ValidationError, match="wrong component") as error:
        type(whole)(**{**values, "strategy": cls()})
    (problem,) = error.value.errors()[0]["ctx"]["problems"]
    assert re.search(message, problem.message)
