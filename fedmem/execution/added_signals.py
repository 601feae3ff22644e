"""Signals that were added to the scenario of a finished run, read at its saved models.

A signal gives each saved model the bytes that it would have given while the run was trained, and NaN for all others.
Whatever makes the models or the examples must be what it was: data, code and settings are compared first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from fedmem.contracts.arrays import Params
from fedmem.contracts.evidence import Bank, Evidence, SignalEvidence, Transition
from fedmem.contracts.families import kind_of
from fedmem.contracts.measurement import Level
from fedmem.contracts.signal import (
    AccumulatingSignal,
    AnySignal,
    quantities_in_parts,
    quantities_of,
    quantity_name,
    signal_declaration,
)
from fedmem.errors import ComponentError, FolderError, RunError
from fedmem.results.provenance import changed_inputs, components_of
from fedmem.scenario.catalogue import dump
from fedmem.weights.model_files import FOLDER, ModelsFile, StoredModels, open_models, stored_models

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.results.read import Run
    from fedmem.scenario.scenario import Scenario
    from fedmem.training.executor import Executor

ENTRY = "added_signals"
"""The entry of a manifest about signals that were added after training."""

NOTE = "added after training: "
"""How the warning begins that says at which models such a signal was read."""

TOLERANCE = 1e-3
"""How far the margins of saved models may be from those that were stored while they were trained.

On the same machine they are equal. Another processor rounds sums of float32 in another way.
"""


@dataclass(frozen=True, kw_only=True)
class AddedSignal:
    """A signal that was added, as the manifest has it: what it is, its code, and the models that it was read at."""

    signal: Mapping[str, Any]
    code: str
    rounds: tuple[int, ...]
    levels: tuple[str, ...]
    runs: int

    def text(self, runs: int) -> str:
        """Where it was read, for a run of so many runs."""
        numbers = ", ".join(map(str, self.rounds))
        return (
            f"{NOTE}{self.signal['kind']} was read at the saved models: round{'s' * (len(self.rounds) > 1)} {numbers}, "
            f"{' and '.join(self.levels)}, {self.runs} of {runs} runs. It is undefined at all others"
        )


def trained_scenario(scenario: Scenario, run_id: object) -> Scenario | None:
    """The scenario that a run was trained with, if this one is the same with signals after it; otherwise None."""
    for count in range(len(scenario.signals), -1, -1):
        candidate = scenario.model_copy(update={"signals": scenario.signals[:count]})
        if candidate.id == run_id:
            return candidate
    return None


def add_signals(run: Run, scenario: Scenario, trained: Scenario, bank: Bank) -> tuple[Bank, list[AddedSignal]]:
    """The evidence of a run with the values of all signals of `scenario`, and the record of those that were added.

    Signals that were added before and have not changed keep their values. Values of those that are not in the scenario
    any more are left out.

    Errors: `FolderError` where data or code have changed since the training, with their names. `ComponentError` at a
    signal that cannot be read at saved models. `RunError` where a file is missing, damaged or of another model.
    """
    added = scenario.signals[len(trained.signals) :]
    records = {_key(record.signal): record for record in added_signals(run.manifest)}
    codes = components_of(scenario)
    read_before, to_read = [], []
    for position, signal in enumerate(added, len(trained.signals)):
        record = records.get(_key(dump(signal)))
        if record is not None and (record.code == codes[kind_of(signal)] or _changes(run, trained)):
            read_before.append(record)
        else:
            to_read.append((position, signal))
    kept_names = {
        name for signal in scenario.signals if signal not in [new for _, new in to_read] for name in _quantities(signal)
    }
    blocks = [block for block in bank.signals if quantity_name(block.name) in kept_names]
    new_records = []
    if to_read:
        files = _require_models(run, trained, to_read)
        coverage = [_coverage(f"signals[{position}]", signal, files, scenario) for position, signal in to_read]
        blocks += _read(run, trained, [signal for _, signal in to_read], bank, files)
        runs = trained.save.models.runs if trained.save.models else None
        new_records = [
            AddedSignal(
                signal=dump(signal),
                code=codes[kind_of(signal)],
                rounds=rounds,
                levels=levels,
                runs=min(trained.runs, runs or trained.runs),
            )
            for (_, signal), (rounds, levels) in zip(to_read, coverage, strict=True)
        ]
    order = {_key(dump(signal)): position for position, signal in enumerate(added)}
    made = sorted([*read_before, *new_records], key=lambda record: order[_key(record.signal)])
    return replace(bank, signals=_in_order(blocks, scenario.signals)), made


def added_signals(manifest: Mapping[str, Any]) -> list[AddedSignal]:
    """The signals that were added to a run after its training, from its manifest."""
    return [
        AddedSignal(
            signal=entry["signal"],
            code=entry["code"],
            rounds=tuple(entry["rounds"]),
            levels=tuple(entry["levels"]),
            runs=entry["runs"],
        )
        for entry in manifest.get(ENTRY, ())
    ]


def _key(signal: Mapping[str, Any]) -> str:
    """A text that is the same for equal signals."""
    return json.dumps(signal, sort_keys=True)


def _changes(run: Run, trained: Scenario) -> list[str]:
    """The makers of models and examples that have changed since the training."""
    from fedmem.execution.checked_inputs import changed_data

    # estimators make neither
    makers = trained.model_copy(update={"estimators": ()})
    estimating = components_of(trained).keys() - components_of(makers).keys()
    changes = [name for name in changed_inputs(trained, run.manifest) if name not in estimating]
    return changes or changed_data(trained, run.manifest)


def _require_models(run: Run, trained: Scenario, to_read: Sequence[tuple[int, AnySignal]]) -> tuple[StoredModels, ...]:
    """The files of saved models; an error where there are none, or they are not those of this code and data."""
    position, signal = to_read[0]
    files = stored_models(run.manifest, run.path / "manifest.json")
    if not files:
        raise ComponentError(
            f"signals[{position}]",
            f"{kind_of(signal)} was added after the training, and {run.path} holds no models to read it at. Take it "
            "out, or run the scenario again with it, or with save.models={rounds: [-1]}",
        )
    if changes := _changes(run, trained):
        raise FolderError(
            f"{run.path} was trained when the content of {', '.join(changes)} was another, so {kind_of(signal)} cannot "
            "be added. Put that content back, or run the scenario again with --force"
        )
    return files


def _coverage(
    path: str, signal: AnySignal, files: Sequence[StoredModels], scenario: Scenario
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The rounds and levels at which a signal can be read. Errors: `ComponentError` where there are none."""
    kind = kind_of(signal)
    if signal_declaration(signal).reads_update:
        raise ComponentError(
            path,
            f"{kind} reads the model before a round or the update, and models are saved after a round alone; run the "
            "scenario again with it",
        )
    saved = sorted({stored.round for stored in files})
    due = [
        number
        for number in scenario.observed_rounds
        if signal.every is None or number % signal.every == 0 or number == scenario.rounds
    ]
    levels = tuple(level for level in signal.levels if level in {stored.level for stored in files})
    rounds = tuple(number for number in due if number in saved)
    if not levels or not rounds:
        raise ComponentError(
            path,
            f"{kind} is read at {', '.join(signal.levels)} in rounds {', '.join(map(str, due))}, and the run saved "
            f"{', '.join(sorted({stored.level for stored in files}))} in {', '.join(map(str, saved))}. Change levels "
            "or every, or run the scenario again with it",
        )
    missing = [number for number in due if number not in saved and (number > 0 or "global" in levels)]
    if isinstance(signal, AccumulatingSignal) and missing:
        raise ComponentError(
            path,
            f"{kind} accumulates over rounds, and models of round{'s' * (len(missing) > 1)} "
            f"{', '.join(map(str, missing))} were not saved; run the scenario again with it, or with these rounds in "
            "save.models.rounds",
        )
    return rounds, levels


def _read(
    run: Run, trained: Scenario, signals: Sequence[AnySignal], bank: Bank, files: Sequence[StoredModels]
) -> list[SignalEvidence]:
    """The values of signals at all saved models, NaN at the other models of their rounds."""
    from fedmem.execution.checked_inputs import build_federation
    from fedmem.execution.executors import executor_in_use
    from fedmem.execution.process_state import process_state
    from fedmem.observation.signals import SignalReader

    federation = build_federation(trained)
    _require_same_examples(run, bank, federation)
    evidence = {(block.round, block.level): block for block in bank.evidence if block.set == "audit"}
    reading = trained.model_copy(update={"signals": tuple(signals)})
    found: dict[tuple[int, str, str], list[SignalEvidence]] = {}
    with process_state(trained.speed.threads), executor_in_use(trained, federation, None) as executor:
        for stored in files:
            file = run.path / FOLDER / stored.name
            with open_models(file, stored, federation.initial) as content:
                _require_same_losses(file, content, evidence, federation, executor)
        runs = sorted({number for block in evidence.values() for number in block.run.tolist()})
        for start in range(0, len(runs), trained.speed.shard):
            some = set(runs[start : start + trained.speed.shard])
            # a signal may accumulate over the rounds of a run
            reader = SignalReader(reading, federation, executor)
            for stored in files:
                with open_models(run.path / FOLDER / stored.name, None, federation.initial) as content:
                    transitions = list(_transitions(content, some))
                    for block in reader.read(transitions) if transitions else ():
                        found.setdefault((block.round, block.level, block.name), []).append(block)
    return [_values_of_all_models(parts, evidence[parts[0].round, parts[0].level]) for parts in found.values()]


def _transitions(content: ModelsFile, runs: set[int]) -> Iterator[Transition]:
    """The saved models of these runs, each as the transition that ends with it."""
    models = content.models
    for position in range(len(models)):
        if models.run[position] in runs:
            kept, unsaved = content.params(position), _Unsaved()
            yield Transition(
                run=models.run[position],
                round=models.round,
                level=models.level,
                client=models.client[position],
                before=unsaved,
                sent=unsaved,
                kept=kept,
                num_examples=models.num_examples[position],
                clients=models.clients[position],
                report=unsaved,
            )


class _Unsaved(dict[str, Any]):
    """A part of a transition that only the training has; reading it is an error."""

    def _refuse(self, *_: Any) -> NoReturn:
        raise RunError(
            "a signal reads what is not saved: the model before a round, the update or the report of a client. Let "
            "the signal declare reads_update = True, and run the scenario again with it"
        )

    __getitem__ = __iter__ = __len__ = __contains__ = keys = values = items = get = _refuse


def _require_same_examples(run: Run, bank: Bank, federation: Federation) -> None:
    """An error where the data of today give other audit examples than those of the run."""
    now, then = federation.audit, bank.audit
    pairs = {
        "inputs": (now.examples.inputs, then.examples.inputs),
        "labels": (now.examples.targets, then.examples.targets),
        "owners": (now.owner, then.owner),
        "inclusion": (now.is_in, then.is_in),
    }
    for name, (a, b) in pairs.items():
        if not np.array_equal(a, b):
            raise FolderError(
                f"{run.path} has other audit examples than its data give now ({name} differ), so no signal can be "
                "added. Put the data and packages of the training back, or run the scenario again with --force"
            )


def _require_same_losses(
    file: Path,
    content: ModelsFile,
    evidence: Mapping[tuple[int, Level], Evidence],
    federation: Federation,
    executor: Executor,
) -> None:
    """An error where saved models do not give the losses that were stored while they were trained."""
    from fedmem.observation.evidence import evidence_of

    models, examples = content.models, federation.audit.examples
    block = evidence.get((models.round, models.level))
    if block is None:
        raise RunError(f"{file} cannot be used: its run observed no {models.level} models in round {models.round}")
    rows = {place: row for row, place in enumerate(zip(block.run.tolist(), block.client.tolist(), strict=True))}
    places = list(zip(models.run, models.client, strict=True))
    if unknown := [place for place in places if place not in rows]:
        raise RunError(f"{file} cannot be used: run {unknown[0][0]} observed no model of client {unknown[0][1]}")
    at_once = executor.models_at_once(len(examples))
    for start in range(0, len(places), at_once):
        stop = min(start + at_once, len(places))
        params: Sequence[Params] = content.several(start, stop)
        chosen = [
            Transition.at_server(run=number, round_number=models.round, before={}, after={})
            for number, _ in places[start:stop]
        ]
        now = evidence_of(params, chosen, "audit", examples, executor).margin
        then = block.margin[[rows[place] for place in places[start:stop]]]
        if not np.allclose(now, then, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            raise RunError(
                f"{file} cannot be used: its models give other losses than {file.parents[1] / 'evidence.parquet'} has. "
                "It belongs to another run, or packages compute differently. Put the file back, or run the "
                "scenario again with --force"
            )


def _values_of_all_models(parts: Sequence[SignalEvidence], block: Evidence) -> SignalEvidence:
    """The values of one quantity at all models of a round and level, NaN at those that were not saved."""
    rows = {place: row for row, place in enumerate(zip(block.run.tolist(), block.client.tolist(), strict=True))}
    values = np.full((len(block.run), parts[0].values.shape[1]), np.nan, dtype=parts[0].values.dtype)
    for part in parts:
        places = zip(part.run.tolist(), part.client.tolist(), strict=True)
        values[[rows[place] for place in places]] = part.values
    return replace(parts[0], run=block.run, client=block.client, values=values)


def _in_order(blocks: Sequence[SignalEvidence], signals: Sequence[AnySignal]) -> tuple[SignalEvidence, ...]:
    """Blocks in the order in which a run stores them."""
    place = {name: position for position, signal in enumerate(signals) for name in _quantities(signal)}
    levels = ("local", "global")

    def order(block: SignalEvidence) -> tuple[int, int, int, str]:
        return block.round, levels.index(block.level), place[quantity_name(block.name)], block.name

    return tuple(sorted(blocks, key=order))


def _quantities(signal: AnySignal) -> tuple[str, ...]:
    """The names of the quantities whose values a signal stores."""
    return (*(measure.name for measure in quantities_of(signal)), *quantities_in_parts(signal))
