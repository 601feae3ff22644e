"""Results on disk: one folder per run, written whole or not at all, read without training and without pickle.

    runs/<scenario name>/<id>/
      scenario.yaml         as resolved, every default written out
      manifest.json         versions, seed, executor, rows and values that are not finite; keys sorted
      measurements.parquet  run, round, level, client, subject, source, setting, metric, value, low, high, n
      evidence.parquet      run, round, level, client, set, subject, loss, margin, correct
      references.parquet    run, round, level, client, family, label, count, subjects, less, ties, quantiles
      audit.parquet         subject, injection, kind, role, holder, copies, start, stop (first and last round of
                            training on it, 0 and 2^31 - 1 if unbounded), target, id, is_in (one per run), inputs
      participation.parquet run, round, client, num_examples, failed
      reconstructions.npz   arrays that probes kept, under `source/name/key`
      params.safetensors    only if asked for

A folder that exists is a finished run: it is written beside its place under a hidden name and renamed at the end.
Floats are stored exactly, so that estimates made from the files equal those made in memory to the last bit.
"""

from __future__ import annotations

import errno
import glob
import json
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.evidence import Bank
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import Measurement
from fedmem.contracts.types import Params
from fedmem.errors import FolderError, RunError
from fedmem.results.tables import (
    audit_rows,
    measurement_rows,
    read_audit,
    read_evidence,
    read_measurements,
    read_participation,
    read_references,
    read_targets,
    write_readings,
    write_table,
)

if TYPE_CHECKING:
    import pandas as pd

RESULTS_SCHEMA = 2
"""Version of the files above; raised when a file or a column changes its name or its meaning."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_finished(folder: Path) -> bool:
    """Whether this is the folder of a finished run."""
    return (folder / "manifest.json").is_file()


def finished(folder: Path) -> int | None:
    """When this run was finished, in nanoseconds of the file system's clock; None where there is no finished run."""
    with suppress(OSError):
        return (folder / "manifest.json").stat().st_mtime_ns if is_finished(folder) else None
    return None


def check_place(folder: Path, *, force: bool = False) -> None:
    """Finds out before any work whether `folder` can be written; nothing is left behind, no folder is made.

    An empty folder in its place is fine, and so is any folder with `force`. Errors: `FolderError`.
    """
    if os.path.lexists(folder):
        what = "a file" if folder.is_file() else "a link that leads nowhere" if not folder.exists() else ""
        if what or (folder.is_symlink() and not is_finished(folder)):
            raise FolderError(
                f"{folder} is {what or 'a link'}, where the folder of the run should go; move it away, or choose "
                "another place with --out"
            )
        if not force and any(folder.iterdir()):
            raise FolderError(
                f"{folder} exists already"
                + (
                    ", which means that this run is finished; --force runs it again"
                    if is_finished(folder)
                    else ", and holds a finished attack; replace it with --force, or choose another place with --out"
                    if (folder / "attack.json").is_file()
                    else ", but holds no finished run (no manifest.json); move it away, or replace it with --force"
                )
            )
    nearest = next(place for place in folder.absolute().parents if os.path.lexists(place))
    try:
        with tempfile.TemporaryDirectory(prefix=".fedmem-", dir=nearest) as place:
            probe = Path(place) / folder.absolute().relative_to(nearest)
            probe.mkdir(parents=True)
            (probe / "probe").write_bytes(b"fedmem")
    except OSError as error:
        raise FolderError(
            f"{nearest} cannot hold the results: {error.strerror or error}; choose another place with --out"
        ) from error


@contextmanager
def writing(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `folder` and renames it to `folder` when the block ends without an error.

    Guarantees:

    - `folder` exists only when everything in it has reached the disk;
    - any exception, Ctrl-C included, removes the temporary folder and leaves no trace;
    - what a killed process left behind for this `folder` is removed at the next start;
    - with `force` the old folder stays in place until the new one is complete.

    Errors: `RunError` when `folder` exists and `force` is not given, and when the disk is full.
    """
    check_place(folder, force=force)
    parent = folder.parent
    made = [place for place in (parent, *parent.parents) if not place.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    _clean(folder)
    mark = f"{os.getpid()}@{socket.gethostname()}"
    partial, replaced = parent / f".{folder.name}.partial-{mark}", parent / f".{folder.name}.replaced-{mark}"
    try:
        with _explaining_full_disk(partial):
            partial.mkdir()
            yield partial
            for place in (*(path for path in sorted(partial.rglob("*")) if path.is_file()), partial):
                _sync(place)
            _put_in_place(partial, folder, replaced, force=force)
            _sync(parent)
    except BaseException:
        if os.path.lexists(replaced) and not os.path.lexists(folder):
            replaced.rename(folder)
        shutil.rmtree(partial, ignore_errors=True)
        for place in made:
            with suppress(OSError):  # not empty: somebody else writes there
                place.rmdir()
        raise
    finally:
        if replaced.is_symlink():
            replaced.unlink()  # what it leads to is not ours
        else:
            shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def one_at_a_time(file: Path) -> Iterator[None]:
    """Holds a lock on this file until the block ends; another process that holds it is waited for."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with file.open("w") as stream:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _put_in_place(partial: Path, folder: Path, replaced: Path, *, force: bool) -> None:
    """Renames `partial` to `folder`, and what was there to `replaced`, while other processes may do the same."""
    for _ in range(100):
        if force or not is_finished(folder):
            with suppress(FileNotFoundError):
                folder.rename(replaced)
        try:
            partial.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if not force:
            check_place(folder)
        shutil.rmtree(replaced, ignore_errors=True)  # another process was faster; its folder is replaced next
    raise RunError(f"{folder} is written by other processes all the time; end them, and run the same command again")


@contextmanager
def _explaining_full_disk(place: Path, needed: int = 0) -> Iterator[None]:
    """Turns the error of a full disk into a `RunError` that says how much is missing and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL and "No space left" not in str(error):
            raise
        written = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        free = shutil.disk_usage(place if place.exists() else place.parent).free
        raise RunError(
            f"the disk that holds {place.parent} is full: the results need about {max(needed, written) / 1e6:.1f} MB "
            f"and {(free + written) / 1e6:.1f} MB are there. Nothing was left behind; free some space or choose "
            "another disk with --out, then run the same command again"
        ) from error


def write_run(
    folder: Path,
    *,
    scenario_yaml: str,
    manifest: Mapping[str, Any],
    measurements: Sequence[Measurement],
    bank: Bank,
    federation: Federation,
    reconstructions: Mapping[str, NDArray[Any]],
    params: Params | None = None,
    force: bool = False,
    draw: Callable[[Path], object] = lambda folder: None,
) -> None:
    """Writes every file of a run, whole or not at all; see `writing`. `draw` adds figures before the folder appears.

    The manifest gains `schema`, `rows` and `not_finite` per file, `bank` (seed, roster and exclusion) and `federation`
    (clients, classes, where each row of the data went). NaN and infinity are legal in the tables and counted
    there; in the manifest itself they become null.
    """
    size = _size(bank, reconstructions, params)
    with writing(folder, force=force) as partial, _explaining_full_disk(partial, size):
        write_readings(partial, bank, measurements)
        layout: dict[str, Any] = {"inputs": bank.audit.examples.inputs.shape, "runs": bank.audit.runs}
        layout["targets"] = {name: labels.tolist() for name, labels in bank.targets.items()}
        if bank.audit.examples.targets.ndim > 1:
            layout["asked"] = bank.audit.examples.targets.tolist()
        if bank.audit.client_in is not None:
            layout["client_in"] = bank.audit.client_in.tolist()
        if bank.audit.owner is not None:
            layout["owner"] = bank.audit.owner.tolist()
        write_table(partial, "audit", [audit_rows(bank.audit)], layout)
        assert not any(value.dtype.hasobject for value in reconstructions.values()), "arrays of objects need pickle"
        arrays: dict[str, Any] = dict(reconstructions)
        np.savez_compressed(partial / "reconstructions.npz", **arrays)
        if params is not None:
            write_params(partial, params)
        (partial / "scenario.yaml").write_text(scenario_yaml, encoding="utf-8")
        counted = {
            "rows": {
                "evidence": sum(block.loss.size for block in bank.evidence),
                "references": sum(len(block.run) * len(block.labels) for block in bank.references),
                "audit": len(bank.audit),
                "participation": len(bank.participation),
            },
            "not_finite": {
                "evidence.loss": _not_finite(*(block.loss for block in bank.evidence)),
                "evidence.margin": _not_finite(*(block.margin for block in bank.evidence)),
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
        _write_manifest(partial, {**manifest, **counted}, measurements)
        draw(partial)


def write_params(folder: Path, params: Params) -> None:
    """Writes `params.safetensors`."""
    from safetensors.torch import save

    copies = {name: value.detach().cpu().contiguous() for name, value in params.items()}
    (folder / "params.safetensors").write_bytes(save(copies))


def replace_measurements(
    path: Path | str, measurements: Sequence[Measurement], changes: Mapping[str, Any] | None = None
) -> None:
    """Puts other measurements into a finished run, and `changes` into its manifest.

    Each file stays whole until its successor is on the disk.
    """
    run = read(path)
    for stale in run.path.glob(".partial-*"):
        if not _alive(int(stale.name.removeprefix(".partial-"))):
            shutil.rmtree(stale)
    partial = run.path / f".partial-{os.getpid()}"
    partial.mkdir()
    try:
        with _explaining_full_disk(partial):
            write_table(partial, "measurements", [measurement_rows(measurements)])
            _write_manifest(partial, {**run.manifest, **(changes or {})}, measurements)
            for name in ("measurements.parquet", "manifest.json"):
                _sync(partial / name)
                (partial / name).replace(run.path / name)
    finally:
        shutil.rmtree(partial)
    _sync(run.path)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run. Frames are read from its files when first asked for and kept.

    `measurements` and the other frames are long: one row per number, NaN where there is none. `evidence.subject`
    counts the rows of `evidence.set`; for the set `audit` it is the `subject` of `audit`.
    """

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What ran, on what, for how long."""
        with _whole(self.path / "manifest.json") as file:
            found: Any = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(found, dict) or not isinstance(found.get("rows", {}), dict):
                raise ValueError("it is no manifest")
            loaded: dict[str, Any] = found
        return loaded

    @cached_property
    def scenario(self) -> dict[str, Any]:
        """The scenario as resolved, every default written out."""
        import yaml

        with _whole(self.path / "scenario.yaml") as file:
            loaded: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
            if not isinstance(loaded, dict):
                raise ValueError("it is no scenario")
        return loaded

    @cached_property
    def measurements(self) -> pd.DataFrame:
        """Every reading and estimate with its interval and its n."""
        return self._frame("measurements")

    @cached_property
    def evidence(self) -> pd.DataFrame:
        """Loss, margin and correctness of every observed model on every example."""
        return self._frame("evidence")

    @cached_property
    def references(self) -> pd.DataFrame:
        """How canaries rank among fresh references, per observed model, family and label."""
        return self._frame("references")

    @cached_property
    def audit(self) -> pd.DataFrame:
        """The audit examples and their coins; their inputs are left in the file."""
        return self._frame("audit").drop(columns="inputs")

    @cached_property
    def participation(self) -> pd.DataFrame:
        """Who took part when."""
        return self._frame("participation")

    @cached_property
    def reference_counts(self) -> dict[str, frozenset[int]]:
        """Kind of canary -> the numbers of references that its canaries are ranked among, as stored with the ranks."""
        import pyarrow.parquet as pq

        with _whole(self.path / "references.parquet") as file:
            rows = pq.read_table(file, columns=["family", "count"]).unify_dictionaries()  # each piece has its own
            pairs = rows.group_by(["family", "count"]).aggregate([])
        counts: dict[str, frozenset[int]] = {}
        for pair in pairs.to_pylist():
            counts[pair["family"]] = counts.get(pair["family"], frozenset()) | {pair["count"]}
        return counts

    def rows(self) -> list[Measurement]:
        """The measurements as records, in the order of the file."""
        with _whole(self.path / "measurements.parquet") as file:
            found = read_measurements(file)
            _counted(len(found), self.manifest["rows"]["measurements"])
        return found

    def reconstructions(self) -> dict[str, NDArray[Any]]:
        """The arrays that probes kept, by `name/key`; empty when there are none."""
        with (
            _whole(self.path / "reconstructions.npz") as file,
            file.open("rb") as stream,
            np.load(stream, allow_pickle=False) as stored,
        ):
            return {name: stored[name] for name in stored.files}

    def params(self) -> Params:
        """The final parameters; an error when the scenario did not ask to keep them."""
        if not (self.path / "params.safetensors").exists():
            raise RunError(f"{self.path} holds no parameters; run it again with --set save.params=true")
        from safetensors.torch import load_file

        with _whole(self.path / "params.safetensors") as file:
            loaded: Params = load_file(file)
        return loaded

    def _frame(self, name: str) -> pd.DataFrame:
        import pyarrow.parquet as pq

        with _whole(self.path / f"{name}.parquet") as file:
            frame: pd.DataFrame = pq.read_table(file).to_pandas()
            _counted(len(frame), self.manifest["rows"][name])
        if name in ("evidence", "references"):  # millions of rows: text stays categorical there
            return frame
        return frame.astype({column: str for column in frame.columns if frame[column].dtype == "category"})


def put(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path | str) -> Run:
    """The finished run in this folder.

    Errors: `FolderError` when the folder is no finished run, or was written in another schema; a file of it that is
    missing or damaged is a `RunError` when it is first asked for.
    """
    folder = Path(path).resolve()
    if not is_finished(folder):
        raise FolderError(f"{path} is no finished run: {_missing(folder)}")
    run = Run(path=folder)
    if (found := run.manifest.get("schema")) != RESULTS_SCHEMA:
        raise FolderError(
            f"{path} is written in schema {found}, this version reads {RESULTS_SCHEMA}; compute it again with: "
            f"fedmem run {path}/scenario.yaml --force"
        )
    return run


def _missing(folder: Path) -> str:
    """Why this is no finished run, and which one may be meant."""
    if not os.path.lexists(folder):
        return "there is no such folder; give the folder runs/<scenario>/<id>, which `fedmem run` prints"
    near = [folder.parent] if folder.is_file() else [*folder.glob("*"), *folder.glob("*/*")]
    found = [str(place) for place in sorted(near) if is_finished(place)]
    meant = f", such as {found[0]}" if found else ""
    if folder.is_file():
        return f"it is a file; give the folder of the run{meant or ' runs/<scenario>/<id>'}"
    return f"it holds no manifest.json; give the folder runs/<scenario>/<id>{meant}"


@contextmanager
def _whole(file: Path) -> Iterator[Path]:
    """Whatever goes wrong while a stored file is read becomes a `RunError` that names the file."""
    try:
        yield file
    except RunError:
        raise
    except Exception as error:
        # Many libraries read our files, each with errors of its own.
        said = " ".join(str(error).split())
        what = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
        raise RunError(
            f"{file} {what} ({type(error).__name__}: {said:.200}); put a copy of the file back, or run the scenario "
            "again with --force"
        ) from error


def _counted(found: int, written: int) -> None:
    if found != written:
        raise ValueError(f"it has {found} rows, {written} were written")


def read_bank(path: Path | str) -> Bank:
    """The evidence of a run as it was in memory: the same arrays, bit for bit, in the same order."""
    run = read(path)
    with _whole(run.path / "manifest.json"):
        rows, settings = run.manifest["rows"], run.manifest["bank"]
        seed, roster = settings["seed"], settings["roster"]
        wanted = [rows[name] for name in ("participation", "audit", "evidence", "references")]
    with _whole(run.path / "participation.parquet") as file:
        participation = read_participation(file)
        _counted(len(participation), wanted[0])
    with _whole(run.path / "audit.parquet") as file:
        audit, targets = read_audit(file), read_targets(file)
        _counted(len(audit), wanted[1])
    with _whole(run.path / "evidence.parquet") as file:
        evidence = tuple(read_evidence(file))
        _counted(sum(block.loss.size for block in evidence), wanted[2])
    with _whole(run.path / "references.parquet") as file:
        references = tuple(read_references(file, audit))
        _counted(sum(len(block.run) * len(block.labels) for block in references), wanted[3])
    return Bank(
        audit=audit,
        evidence=evidence,
        references=references,
        participation=tuple(participation),
        seed=seed,
        roster=roster,
        # runs of older versions do not say
        exclusion=settings.get("exclusion", run.scenario.get("exclusion", "replace")),
        targets=targets,
    )


def _write_manifest(folder: Path, manifest: Mapping[str, Any], measurements: Sequence[Measurement]) -> None:
    """The manifest with the counts of these measurements, keys sorted, as strict JSON."""
    count = {"measurements": len(measurements)}
    values = {
        "measurements.value": _not_finite(np.array([row.reading.value for row in measurements], dtype=np.float64))
    }
    counted = {
        **manifest,
        "rows": {**manifest.get("rows", {}), **count},
        "not_finite": {**manifest.get("not_finite", {}), **values},
    }
    text = json.dumps(_strict(counted), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def _strict(value: Any) -> Any:
    """The same in types of JSON; NaN and infinity, which JSON has not, become null."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_strict(item) for item in value]
    if isinstance(value, np.generic):
        return _strict(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _not_finite(*arrays: NDArray[Any]) -> dict[str, int]:
    """How many values are NaN, and how many infinite."""
    return {
        "nan": sum(int(np.isnan(values).sum()) for values in arrays),
        "infinite": sum(int(np.isinf(values).sum()) for values in arrays),
    }


def _size(bank: Bank, reconstructions: Mapping[str, NDArray[Any]], params: Params | None) -> int:
    """Bytes that the arrays take in memory: what the disk needs at most, give or take the short columns."""
    evidence = sum(block.loss.nbytes + block.margin.nbytes + block.correct.nbytes for block in bank.evidence)
    references = sum(block.less.nbytes + block.ties.nbytes + block.quantiles.nbytes for block in bank.references)
    kept = sum(array.nbytes for array in reconstructions.values())
    kept += sum(value.nbytes for value in params.values()) if params is not None else 0
    return evidence + references + bank.audit.examples.inputs.nbytes + kept


def _clean(folder: Path) -> None:
    """Removes what dead processes of this host left behind; puts a folder back that was about to be replaced."""
    for place in sorted(folder.parent.glob(f".{glob.escape(folder.name)}.*@{socket.gethostname()}")):
        what, process = place.name.removeprefix(f".{folder.name}.").split("@")[0].split("-")
        if what not in ("partial", "replaced") or _alive(int(process)):
            continue
        if what == "replaced" and not folder.exists():
            place.rename(folder)
        else:
            shutil.rmtree(place)


def _alive(process: int) -> bool:
    """Whether another process with this number is running; where that cannot be asked, yes."""
    if os.name != "posix":
        return process != os.getpid()
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(place: Path) -> None:
    """Waits until a file or a folder has reached the disk."""
    if place.is_dir() and os.name != "posix":
        return
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
