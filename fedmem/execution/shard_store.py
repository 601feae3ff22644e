"""Runs of a bank that are trained already, kept while others are trained: whole or not at all, read without pickle.

```text
runs/<scenario name>/.<id>.shards/    next to the folder of the run, removed when that is written
  lock                                the process that trains these runs, one at a time
  lost.json                           clients that failed in some run and are dropped in all
  pilot.json                          the clients that the pilot picked, if there is one
  runs-0-15/                          the readings of one shard, as the files of a run, but before summaries
    measurements.parquet  evidence.parquet  references.parquet  participation.parquet
    reconstructions.npz   params.safetensors  models/ (the last two if asked for)
    shard.json                        what made it, the clients dropped, the sha256 of every file and of itself
```

Floats are stored exactly, so that a bank which was put together from files equals one that never left memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tarfile import TarError
from typing import Any

import numpy as np

from fedmem.contracts.evidence import Bank, Dropped, Lost, TrainedBank
from fedmem.contracts.sampler import PickedCohort, Pilot
from fedmem.errors import RunError
from fedmem.execution.archives import unpack
from fedmem.results.evidence_table import IN_MEMORY, read_evidence
from fedmem.results.folder import explaining_disk, writing
from fedmem.results.readings import write_readings
from fedmem.results.signal_tables import read_all_signals, write_signals
from fedmem.results.tables import read_measurements, read_participation, read_references
from fedmem.results.write import write_params
from fedmem.training.stacked import stack
from fedmem.weights.model_files import FOLDER, digest_of_file

Made = Mapping[str, str]
"""All that the numbers of a shard depend on, by name."""


_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""The errors of reading a file that was changed or damaged."""


_NAME = re.compile(r"runs-(\d+)-(\d+)")


def place_of(folder: Path) -> Path:
    """Where the shards of this run are kept.

    >>> place_of(Path("runs/quickstart/0123")).as_posix()
    'runs/quickstart/.0123.shards'
    """
    return folder.parent / f".{folder.name}.shards"


def kept_runs(folder: Path) -> int:
    """How many runs of an unfinished bank are kept, whatever made them."""
    return sum(len(shard) for shard in stored_shards(place_of(folder)))


def divide(runs: int, size: int, kept: Sequence[range] = ()) -> tuple[range, ...]:
    """All runs in shards of at most `size`: those that are kept, and between them shards that differ by one at most.

    Args:
        runs: how many there are.
        size: the largest number of runs in a new shard.
        kept: disjoint shards of consecutive runs, sorted.

    >>> divide(20, 16)
    (range(0, 10), range(10, 20))
    >>> divide(8, 3, [range(2, 7)])
    (range(0, 2), range(2, 7), range(7, 8))
    """
    shards: list[range] = []
    start = 0
    for shard in (*kept, range(runs, runs)):
        gap = shard.start - start
        parts = -(-gap // size)
        ends = [start + gap * part // max(parts, 1) for part in range(parts + 1)]
        shards += [range(first, last) for first, last in pairwise(ends)]
        shards += [shard] if len(shard) else []
        start = shard.stop
    return tuple(shards)


class Shards:
    """The shards of one run, held by this process; see `claim`."""

    def __init__(self, place: Path, lock: int | None) -> None:
        self.place = place
        self._lock = lock
        self.made_from: Made = {}

    @property
    def has_shards(self) -> bool:
        """Whether there are shards."""
        return bool(stored_shards(self.place))

    def let_go(self) -> None:
        """Close the lock in a fork, so that it stays with the parent and ends with it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def open(self, made: Made) -> tuple[dict[range, Dropped], list[str]]:
        """Finds the shards that this scenario, code, data and machine made, sorted; says why others are not used.

        Damaged shards and those made by anything else are removed.
        """
        self.made_from = dict(made)
        for left_over in self.place.glob(".runs-*.models"):  # of a process that was killed
            shutil.rmtree(left_over)
        dropped_by_shard: dict[range, Dropped] = {}
        refused: list[str] = []
        for shard in stored_shards(self.place):
            try:
                content = self._read_checked(shard)
                if dropped_by_shard and next(reversed(dropped_by_shard)).stop > shard.start:
                    raise ValueError("other shards hold the same runs")
            except _UNREADABLE as error:
                refused.append(f"training {name_of(shard)} again: {error}")
                shutil.rmtree(self.folder_of(shard))
            else:
                dropped_by_shard[shard] = Dropped(
                    known=_failures_of(content["known"]), found=_failures_of(content["found"])
                )
        return dropped_by_shard, refused

    def models_folder(self, shard: range) -> Path:
        """Where the models of a shard are stored while it is trained; `write` takes them from there."""
        return self.place / f".{self.folder_of(shard).name}.models"

    def write(self, shard: range, done: TrainedBank, dropped: Dropped, *, params: bool) -> None:
        """Keeps a shard with its saved models, if there are some; it is there when all of it has reached the disk.

        Errors: `RunError` where the disk is full.
        """
        with writing(self.folder_of(shard), force=True) as partial:
            write_readings(partial, done.bank, done.measurements)
            write_signals(partial, done.bank.signals)
            arrays: dict[str, Any] = dict(done.reconstructions)
            np.savez(partial / "reconstructions.npz", **arrays)
            if params:
                write_params(partial, stack(done.params))
            if self.models_folder(shard).exists():
                self.models_folder(shard).rename(partial / FOLDER)
            content = {
                "made": dict(self.made_from),
                "runs": [shard.start, shard.stop],
                "known": _failure_rows(dropped.known),
                "found": _failure_rows(dropped.found),
                "executor": done.executor,
                "server": done.server,
                "workers": done.workers,
                "device": done.device,
                "card": done.card,
                "untraced": dict(done.untraced),
                "seconds": dict(done.seconds),
                "files": {name: digest_of_file(partial / name) for name in _names_below(partial)},
            }
            _write_json(partial / "shard.json", content)

    def install(self, shard: range, packed: bytes) -> None:
        """Keeps a shard that was written elsewhere, from its packed folder; it is there when all has reached the disk.

        Errors: `RunError` where it is not whole, or was made from something else, or the disk is full.
        """
        try:
            with writing(self.folder_of(shard), force=True) as partial:
                unpack(packed, partial)
                self._read_checked(shard, partial)
        except (*_UNREADABLE, TarError) as error:
            raise RunError(f"{name_of(shard)} arrived damaged ({error}); run the same command again") from error

    def read_shard(self, shard: range, bank: Bank) -> TrainedBank:
        """A shard as it was written; `bank` has what all runs share, and no evidence.

        Errors: `RunError` where it was damaged since.
        """
        place = self.folder_of(shard)
        try:
            content = self._read_checked(shard)
        except _UNREADABLE as error:
            raise RunError(
                f"{place} was damaged after it had been written ({error}); run the same command again, which trains "
                f"{name_of(shard)} again"
            ) from error
        in_memory = IN_MEMORY // max(1, len(stored_shards(self.place)))
        with np.load(place / "reconstructions.npz", allow_pickle=False) as arrays:
            reconstructions = {name: arrays[name] for name in arrays.files}
        return TrainedBank(
            bank=replace(
                bank,
                evidence=tuple(read_evidence(place / "evidence.parquet", in_memory)),
                references=tuple(read_references(place / "references.parquet", bank.audit)),
                participation=tuple(read_participation(place / "participation.parquet")),
                signals=tuple(read_all_signals(place)),
            ),
            measurements=tuple(read_measurements(place / "measurements.parquet")),
            reconstructions=reconstructions,
            params=_params(place / "params.safetensors", len(shard)),
            executor=content["executor"],
            server=content["server"],
            workers=content["workers"],
            device=content["device"],
            card=content["card"],
            untraced=content["untraced"],
            seconds=content["seconds"],
            failures={**_failures_of(content["known"]), **_failures_of(content["found"])},
        )

    def models(self) -> dict[str, list[Path]]:
        """The name of each file of saved models, and the files of that name of all shards, by their runs."""
        parts: dict[str, list[Path]] = {}
        for shard in stored_shards(self.place):
            for file in sorted((self.folder_of(shard) / FOLDER).glob("*.safetensors")):
                parts.setdefault(file.name, []).append(file)
        return parts

    def model_bytes(self) -> int:
        """The bytes of all saved models that are there."""
        return sum(file.stat().st_size for files in self.models().values() for file in files)

    def known_failures(self) -> Lost:
        """Clients that are known to fail, as last stored; none where that is damaged or by other code."""
        try:
            content = _read_json(self.place / "lost.json")
            return _failures_of(content["known"]) if content["made"] == self.made_from else {}
        except _UNREADABLE:
            return {}

    def store_failures(self, failures: Lost) -> None:
        """The clients that are known to fail from now on."""
        self._put("lost.json", {"made": self.made_from, "known": _failure_rows(failures)})

    def _put(self, name: str, content: Mapping[str, Any]) -> None:
        """A small file that is there when it has reached the disk."""
        partial = self.place / f".{name}"
        with explaining_disk(partial):
            _write_json(partial, content)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(self.place / name)

    def pilot(self) -> Pilot | None:
        """The pilot that was kept; None where there is none, it is damaged or something else made it."""
        try:
            content = _read_json(self.place / "pilot.json")
            if content["made"] != self.made_from:
                return None
            rounds = [
                PickedCohort(
                    clients=tuple(clients),
                    probabilities=None if probabilities is None else np.array(probabilities, dtype=np.float64),
                )
                for clients, probabilities in content["rounds"]
            ]
            return Pilot(rounds=tuple(rounds), failed=content["failed"], seconds=content["seconds"])
        except _UNREADABLE:
            return None

    def keep_pilot(self, pilot: Pilot) -> None:
        """Keeps what the pilot picked."""
        rounds = [
            (cohort.clients, None if cohort.probabilities is None else cohort.probabilities.tolist())
            for cohort in pilot.rounds
        ]
        content = {"made": self.made_from, "rounds": rounds, "failed": pilot.failed, "seconds": pilot.seconds}
        self._put("pilot.json", content)

    def remove_all(self) -> None:
        """Removes every shard."""
        for shard in stored_shards(self.place):
            shutil.rmtree(self.folder_of(shard))
        for name in ("lost.json", "pilot.json"):
            (self.place / name).unlink(missing_ok=True)

    def folder_of(self, shard: range) -> Path:
        """The folder of a shard."""
        return self.place / f"runs-{shard.start}-{shard.stop - 1}"

    def _read_checked(self, shard: range, place: Path | None = None) -> dict[str, Any]:
        """The content of `shard.json`; an error where anything is not as it was written, or something else made it."""
        place = place or self.folder_of(shard)
        content = _read_json(place / "shard.json")
        if content["made"] != self.made_from:
            names = sorted(content["made"].keys() | self.made_from.keys())
            other = [name for name in names if content["made"].get(name) != self.made_from.get(name)]
            raise ValueError(f"those that are kept were made with another {', another '.join(other)}")
        if content["runs"] != [shard.start, shard.stop]:
            raise ValueError("those that are kept are others")
        present = set(_names_below(place)) - {"shard.json"}
        for name in sorted(present | content["files"].keys()):
            if name not in present or content["files"].get(name) != digest_of_file(place / name):
                raise ValueError(f"{name} is damaged")
        return content


def name_of(shard: range) -> str:
    """For messages.

    >>> name_of(range(0, 4)), name_of(range(4, 5))
    ('runs 0 to 3', 'run 4')
    """
    return f"run {shard.start}" if len(shard) == 1 else f"runs {shard.start} to {shard.stop - 1}"


def stored_shards(place: Path) -> list[range]:
    """The shards that are there, by their names; sorted, of two with the same beginning the longer one first."""
    names = [entry.name for entry in place.iterdir() if entry.is_dir()] if place.is_dir() else []
    matches = filter(None, map(_NAME.fullmatch, names))
    shards = [range(int(match[1]), int(match[2]) + 1) for match in matches]
    return sorted(shards, key=lambda shard: (shard.start, -shard.stop))


def _params(file: Path, runs: int) -> tuple[dict[str, Any], ...]:
    """The final parameters of each run, if they were kept."""
    if not file.exists():
        return ()
    from safetensors.torch import load_file

    stacked = load_file(file)
    return tuple({name: value[run] for name, value in stacked.items()} for run in range(runs))


def _failure_rows(lost: Lost) -> list[tuple[int, int, str]]:
    return [(round_number, client, cause) for (round_number, client), cause in sorted(lost.items())]


def _failures_of(listed: Iterable[tuple[int, int, str]]) -> Lost:
    return {(round_number, client): cause for round_number, client, cause in listed}


def _names_below(folder: Path) -> list[str]:
    """The files of a shard, with the folder of its models."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    """JSON with the sha256 of itself."""
    text = json.dumps(content, sort_keys=True)
    file.write_text(json.dumps([hashlib.sha256(text.encode()).hexdigest(), text]), encoding="utf-8")


def _read_json(file: Path) -> dict[str, Any]:
    checksum, text = json.loads(file.read_text(encoding="utf-8"))
    if hashlib.sha256(text.encode()).hexdigest() != checksum:
        raise ValueError(f"{file.name} is damaged")
    content: dict[str, Any] = json.loads(text)
    return content
