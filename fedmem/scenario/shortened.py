"""Observed rounds of a scenario whose number of rounds was lowered on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from fedmem.contracts.events import count
from fedmem.contracts.probe import Probe, probe_declaration
from fedmem.contracts.signal import AnySignal
from fedmem.scenario.observing import Observe
from fedmem.scenario.overrides import Origin
from fedmem.scenario.saving import Save


def clip_observed(
    values: Mapping[str, Any], file_rounds: object, origin: Origin
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields of a scenario without observed rounds that a lowered number of rounds cuts off, and notes about them.

    Changed fields: `observe.every` and `every` of probes and signals are at most the number of rounds. `observe.rounds`
    and the rounds of probes and saved models lose those that no longer happen; where none is left, it is the last.

    Other values stay as they are, so that their mistakes are reported. These are the values of an override, and rounds
    outside those of the file itself.

    Args:
        values: The fields that are right, by name.
        file_rounds: The number of rounds before overrides; anything else where the file has none.
        origin: Where each value came from.
    """
    changed, rounds = dict(values), values.get("rounds")
    if not isinstance(rounds, int) or not isinstance(file_rounds, int) or not origin.is_overridden(("rounds",)):
        return changed, ()
    clipper = _Clipper(rounds=(file_rounds, rounds), origin=origin)
    if "observe" in values:
        changed["observe"] = clipper.observe(values["observe"])
    if "probes" in values:
        changed["probes"] = tuple(clipper.probe(probe, f"probes[{i}]") for i, probe in enumerate(values["probes"]))
    if "signals" in values:
        changed["signals"] = tuple(clipper.signal(part, f"signals[{i}]") for i, part in enumerate(values["signals"]))
    if "save" in values:
        changed["save"] = clipper.save(values["save"])
    if not clipper.changes:
        return changed, ()
    note = f"the run has {count(rounds, 'round')} instead of {file_rounds}, so {'; '.join(clipper.changes)}"
    return changed, (note,)


class _Clipper:
    """Clips to fewer rounds, and remembers what it changed."""

    def __init__(self, *, rounds: tuple[int, int], origin: Origin) -> None:
        self._before, self._now = rounds
        self._origin = origin
        self.changes: list[str] = []

    def observe(self, observe: Observe) -> Observe:
        """When models are looked at."""
        every = self._every(observe.every, "observe.every")
        kept = self._rounds(observe.rounds, "observe.rounds")
        return observe.model_copy(update={"every": every, "rounds": kept})

    def probe(self, probe: Probe, path: str) -> Probe:
        """A probe; one that is no dataclass stays as it is."""
        if not is_dataclass(probe) or isinstance(probe, type):
            return probe
        names = {field.name for field in fields(probe)}
        changes: dict[str, Any] = {}
        if "every" in names:
            changes["every"] = self._every(probe.every, f"{path}.every")
        declared = probe_declaration(probe).rounds
        if "rounds" in names and declared:
            changes["rounds"] = self._rounds(declared, f"{path}.rounds") or (self._now,)
        now = {name: getattr(probe, name) for name in changes}
        clipped: Probe = probe if changes == now else replace(probe, **changes)
        return clipped

    def signal(self, signal: AnySignal, path: str) -> AnySignal:
        """A signal; one that is no dataclass, or has no field `every`, stays as it is."""
        if (
            not is_dataclass(signal)
            or isinstance(signal, type)
            or "every" not in {item.name for item in fields(signal)}
        ):
            return signal
        every = self._every(signal.every, f"{path}.every")
        clipped: AnySignal = signal if every == signal.every else replace(signal, every=every)
        return clipped

    def save(self, save: Save) -> Save:
        """Which models are stored."""
        if save.models is None:
            return save
        kept = self._rounds(save.models.rounds, "save.models.rounds") or (self._now,)
        return save.model_copy(update={"models": save.models.model_copy(update={"rounds": kept})})

    def _every(self, every: int | None, path: str) -> int | None:
        if every is None or not self._now < every <= self._before or not self._is_of_file(path):
            return every
        self.changes.append(f"{path} is {self._now} instead of {every}")
        return self._now

    def _rounds(self, rounds: Sequence[int], path: str) -> tuple[int, ...]:
        cut = [i for i, number in enumerate(rounds) if self._is_cut(number) and self._is_of_file(f"{path}[{i}]")]
        if cut:
            self.changes.append(f"{path} leaves out {_list(rounds[i] for i in cut)}")
        return tuple(number for i, number in enumerate(rounds) if i not in cut)

    def _is_cut(self, number: int) -> bool:
        """Whether a round happens in the file, and not in the run."""
        return _happens(number, self._before) and not _happens(number, self._now)

    def _is_of_file(self, path: str) -> bool:
        """Whether the file gave the value at a path; a value of an override has no line."""
        return self._origin.locate(path)[1] is not None


def _happens(number: int, rounds: int) -> bool:
    """Whether a round, counted from the start or from the end, is one of so many.

    >>> [_happens(number, 4) for number in (0, 4, 5, -1, -5, -6)]
    [True, True, False, True, True, False]
    """
    return -rounds - 1 <= number <= rounds


def _list(numbers: Iterable[int]) -> str:
    """Numbers, the middle of many left out.

    >>> _list([5, 10]), _list(range(30))
    ('5, 10', '0, 1, 2, 3, 4, …, 29')
    """
    return ", ".join(_few([str(number) for number in numbers]))


def _few(texts: Sequence[str]) -> Iterator[str]:
    yield from texts if len(texts) < 8 else (*texts[:5], "…", texts[-1])
