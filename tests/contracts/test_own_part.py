"""Arguments of own parts are copies."""

from dataclasses import dataclass

from fedmem.contracts.own_part import OwnPart, own_definition, own_signature


@dataclass(frozen=True, kw_only=True)
class Part(OwnPart):
    """A part with a list."""

    _signature = "Part takes sizes"
    _at = "mine.py:3"
    sizes: object


def test_receivers_change_no_field() -> None:
    part = Part(sizes={"a": [1, [2]]})
    part._arguments()["sizes"]["a"][1].append(3)
    assert part.sizes == {"a": [1, [2]]}


def test_signature_and_place_are_those_of_own_parts_only() -> None:
    assert (own_signature(Part), own_definition(Part)) == ("Part takes sizes", "mine.py:3")
    assert (own_signature(int), own_definition(int)) == ("", "")
