"""Writes the files of a run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.coin_law import BALANCED
from fedmem.contracts.evidence import Bank, SignalEvidence
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import Measurement
from fedmem.results.conditions import condition_of
from fedmem.results.examples import write_names
from fedmem.results.folder import _is_alive, _sync, explaining_disk, writing
from fedmem.results.population_table import write_population
from fedmem.results.read import RESULTS_SCHEMA, read
from fedmem.results.readings import write_readings
from fedmem.results.signal_tables import SIGNAL_FILES, file_of, signal_counts, write_signals
from fedmem.results.tables import (
    audit_rows,
    write_measurements,
    write_table,
)
from fedmem.weights.model_files import FOLDER, describe_file, join_files, write_frozen


@dataclass(frozen=True, kw_only=True)
class Results:
    """The content of the folder of a run.

    Attributes:
        scenario_yaml: The scenario as it was run.
        manifest: Versions, code, times and alarms.
        measurements: All rows of the table.
        bank: Evidence of all runs.
        federation: The rows of each client.
        reconstructions: Arrays by name.
        params: Final parameters of all runs, stacked, if they are stored.
        models: The name of each file of saved models, and the files of the shards that it is joined from.
        condition: What all values are conditional on, see `fedmem.results.conditions`; empty for nothing.
    """

    scenario_yaml: str
    manifest: Mapping[str, Any]
    measurements: Sequence[Measurement]
    bank: Bank
    federation: Federation
    reconstructions: Mapping[str, NDArray[Any]]
    params: Params | None = None
    models: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    condition: str = ""


def write_run(
    folder: Path, results: Results, *, force: bool = False, draw: Callable[[Path], object] = lambda folder: None
) -> None:
    """Writes every file of a run, whole or not at all; see `writing`. `draw` adds figures before the folder appears.

    The manifest gains `schema`, `rows` and `not_finite` per file, `bank` (seed, roster and exclusion) and `federation`
    (clients, classes, where each row of the data went). NaN and infinity are legal in the tables and counted
    there; in the manifest itself they become null.
    """
    bank, federation, reconstructions = results.bank, results.federation, results.reconstructions
    size = _size(bank, reconstructions, results.params)
    size += sum(part.stat().st_size for parts in results.models.values() for part in parts)
    with writing(folder, force=force) as partial, explaining_disk(partial, size):
        write_readings(partial, bank, results.measurements, results.condition)
        write_signals(partial, bank.signals)
        write_population(partial, bank.inputs)
        write_audit(partial, bank.audit, bank.targets, bank.label_counts)
        write_names(partial, federation)
        assert not any(value.dtype.hasobject for value in reconstructions.values()), "arrays of objects need pickle"
        arrays: dict[str, Any] = dict(reconstructions)
        np.savez_compressed(partial / "reconstructions.npz", **arrays)
        stored_params = {} if results.params is None else {"params": write_params(partial, results.params)}
        saved_models = _join_models(partial, results.models, federation)
        (partial / "scenario.yaml").write_text(results.scenario_yaml, encoding="utf-8")
        counts = {
            "rows": {
                "evidence": sum(block.size for block in bank.evidence),
                "references": sum(len(block.run) * len(block.labels) for block in bank.references),
                "audit": len(bank.audit),
                "participation": len(bank.participation),
                **signal_counts(bank.signals),
                **{name: len(rows) for name, rows in bank.inputs.items()},
            },
            "not_finite": {
                "evidence.loss": _not_finite(block.loss for block in bank.evidence),
                "evidence.margin": _not_finite(block.margin for block in bank.evidence),
                **_signals_not_finite(bank.signals),
            },
            "schema": RESULTS_SCHEMA,
            "bank": {
                "seed": bank.seed,
                "roster": bank.roster,
                "exclusion": bank.exclusion,
                "runs": bank.audit.runs,
            },
            "federation": {
                "clients": federation.num_clients,
                "classes": federation.num_classes,
                "counts": dict(federation.counts),
            },
        }
        _write_manifest(partial, {**results.manifest, **counts, **saved_models, **stored_params}, results.measurements)
        draw(partial)


def write_audit(folder: Path, audit: AuditSet, targets: Mapping[str, IntArray], label_counts: IntArray | None) -> None:
    """Writes `audit.parquet`, with the labels of other sets of examples and of the base rows of clients."""
    layout: dict[str, Any] = {"inputs": audit.examples.inputs.shape, "runs": audit.runs}
    layout["targets"] = {name: labels.tolist() for name, labels in targets.items()}
    if label_counts is not None:
        layout["label_counts"] = label_counts.tolist()
    if audit.examples.several_targets:
        layout["asked"] = audit.examples.targets.tolist()
    if audit.client_in is not None:
        layout["client_in"] = audit.client_in.tolist()
    if audit.coin_row is not None:
        layout["coin_row"] = audit.coin_row.tolist()
    if audit.coin_group is not None:
        layout["coin_group"] = audit.coin_group.tolist()
    if audit.coin_law != BALANCED:
        layout["coin_law"] = asdict(audit.coin_law)
    if audit.inclusion_rates is not None:
        layout["inclusion_rates"] = audit.inclusion_rates.tolist()
    if audit.relearnt is not None:
        layout["relearnt"] = audit.relearnt.tolist()
    if audit.copy_owner is not None:
        layout["copy_owner"] = audit.copy_owner.tolist()
    if audit.aims_at is not None:
        layout["aims_at"] = audit.aims_at.tolist()
    if audit.not_uniform:
        layout["not_uniform"] = list(audit.not_uniform)
    write_table(folder, "audit", [audit_rows(audit)], layout)


def _join_models(folder: Path, models: Mapping[str, Sequence[Path]], federation: Federation) -> dict[str, Any]:
    """Writes the files of saved models and of what they share, and returns the entries of the manifest about them.

    Nothing without any model.
    """
    if not models:
        return {}
    (folder / FOLDER).mkdir()
    entries = []
    for name, parts in models.items():
        file = folder / FOLDER / name
        entries.append(describe_file(file, join_files(parts, file)))
    frozen = federation.stored_frozen
    shared = {"frozen": write_frozen(folder / FOLDER, frozen)} if frozen else {}
    return {"models": sorted(entries, key=lambda entry: (entry["round"], entry["level"])), **shared}


def write_params(folder: Path, params: Params) -> dict[str, int | str]:
    """Writes `params.safetensors`; its size and sha256, by which a damaged file is noticed."""
    from safetensors.torch import save

    copies = {name: value.detach().cpu().contiguous() for name, value in params.items()}
    content = save(copies)
    (folder / "params.safetensors").write_bytes(content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def replace_measurements(
    path: Path | str, measurements: Sequence[Measurement], changes: Mapping[str, Any] | None = None
) -> None:
    """Puts other measurements into a finished run, and `changes` into its manifest.

    Each file stays whole until its successor is on the disk.
    """
    run = read(path)
    for old_folder in run.path.glob(".partial-*"):
        if not _is_alive(int(old_folder.name.removeprefix(".partial-"))):
            shutil.rmtree(old_folder)
    partial = run.path / f".partial-{os.getpid()}"
    partial.mkdir()
    try:
        with explaining_disk(partial):
            write_measurements(partial, measurements, condition_of(run.scenario))
            _write_manifest(partial, {**run.manifest, **(changes or {})}, measurements)
            for name in ("measurements.parquet", "manifest.json"):
                _sync(partial / name)
                (partial / name).replace(run.path / name)
    finally:
        shutil.rmtree(partial)
    _sync(run.path)


@dataclass(frozen=True)
class Replacement:
    """The new content of a run whose signals changed: scenario, signals, measurements, and entries of the manifest."""

    scenario_yaml: str
    signals: Sequence[SignalEvidence]
    measurements: Sequence[Measurement]
    changes: Mapping[str, Any]


def replace_signals(path: Path, new: Replacement, *, draw: Callable[[Path], object] = lambda folder: None) -> None:
    """Puts other signals into a finished run, with all that depends on them; the whole folder is replaced at once.

    Files that stay are linked, or copied where the disk has no links.
    """
    run = read(path)
    folder = run.path
    of_signals = [f"{name}.parquet" for name in SIGNAL_FILES]
    rewritten = {"scenario.yaml", *of_signals, "measurements.parquet", "manifest.json"}
    with writing(folder, force=True) as partial:
        for file in sorted(folder.rglob("*")):
            name = file.relative_to(folder)
            if name.parts[0].startswith("."):
                continue
            if file.is_dir():
                (partial / name).mkdir()
            elif name.as_posix() not in rewritten:
                try:
                    os.link(file, partial / name)
                except OSError:
                    shutil.copy2(file, partial / name)
        (partial / "scenario.yaml").write_text(new.scenario_yaml, encoding="utf-8")
        write_signals(partial, new.signals)
        write_measurements(partial, new.measurements, condition_of(run.scenario))
        rows = dict(run.manifest["rows"])
        not_finite = dict(run.manifest["not_finite"])
        for table in SIGNAL_FILES:
            rows.pop(table, None)
            not_finite.pop(f"{table}.value", None)
        rows |= signal_counts(new.signals)
        not_finite |= _signals_not_finite(new.signals)
        manifest = {**run.manifest, "rows": rows, "not_finite": not_finite, **new.changes}
        _write_manifest(partial, manifest, new.measurements)
        draw(partial)


def _write_manifest(folder: Path, manifest: Mapping[str, Any], measurements: Sequence[Measurement]) -> None:
    """The manifest with the counts of these measurements, keys sorted, as strict JSON."""
    count = {"measurements": len(measurements)}
    values = {
        "measurements.value": _not_finite([np.array([row.reading.value for row in measurements], dtype=np.float64)])
    }
    content = {
        **manifest,
        "rows": {**manifest.get("rows", {}), **count},
        "not_finite": {**manifest.get("not_finite", {}), **values},
    }
    text = json.dumps(_to_json(content), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def _to_json(value: Any) -> Any:
    """The same in types of JSON; NaN and infinity, which JSON has not, become null."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_to_json(item) for item in value]
    if isinstance(value, np.generic):
        return _to_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _not_finite(arrays: Iterable[NDArray[Any]]) -> dict[str, int]:
    """How many values are NaN, and how many infinite; each array is asked for once."""
    counts = [(int(np.isnan(values).sum()), int(np.isinf(values).sum())) for values in arrays]
    return {"nan": sum(nan for nan, _ in counts), "infinite": sum(infinite for _, infinite in counts)}


def _signals_not_finite(blocks: Sequence[SignalEvidence]) -> dict[str, dict[str, int]]:
    """The values of signals that are not finite, by file and column."""
    by_file: dict[str, list[NDArray[Any]]] = {}
    for block in blocks:
        by_file.setdefault(f"{file_of(block)}.value", []).append(block.values)
    return {name: _not_finite(values) for name, values in by_file.items()}


def _size(bank: Bank, reconstructions: Mapping[str, NDArray[Any]], params: Params | None) -> int:
    """Bytes that the arrays take in memory: what the disk needs at most, give or take the short columns."""
    evidence = sum(block.size * (2 * block.dtype.itemsize + 1) for block in bank.evidence)
    references = sum(block.less.nbytes + block.ties.nbytes + block.quantiles.nbytes for block in bank.references)
    further_bytes = sum(block.values.nbytes for block in bank.signals)
    further_bytes += sum(array.nbytes for array in reconstructions.values())
    further_bytes += sum(value.nbytes for value in params.values()) if params is not None else 0
    return evidence + references + bank.audit.examples.inputs.nbytes + further_bytes
