"""What watchers may declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from flwr.serverapp.strategy import FedAvg

from fedmem.contracts.evidence import Transition
from fedmem.contracts.watcher import watcher_declaration
from fedmem.errors import ComponentError
from fedmem.observation.observed import Observed


class Plain:
    def observes_round(self, round_number: int) -> bool:
        return False

    def see(self, transitions: Sequence[Transition]) -> None: ...


class Declaring(Plain):
    def __init__(self, **declared: Any) -> None:
        vars(self).update(declared)


def test_a_watcher_without_declarations_has_the_defaults() -> None:
    declared = watcher_declaration(Plain())
    assert (declared.begin, declared.on_error) == (None, "raise")


def test_declarations_of_a_watcher_are_read_from_the_instance() -> None:
    declared = watcher_declaration(Declaring(begin=print, on_error="warn"))
    assert (declared.begin, declared.on_error) == (print, "warn")


@pytest.mark.parametrize("declared", [{"on_error": "ignore"}, {"begin": 3}])
def test_a_wrong_declaration_is_an_error_before_training(declared: dict[str, Any]) -> None:
    with pytest.raises(ComponentError, match=f"watcher: Declaring declares {next(iter(declared))} = "):
        Observed(FedAvg(), Declaring(**declared))
