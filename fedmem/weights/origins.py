"""The place that weights come from: a finished run, a file, or the folder of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmem.contracts.arrays import Params
from fedmem.errors import ComponentError, FedmemError
from fedmem.fetched.models import MODELS, model_folder, verified_folder
from fedmem.weights.files import KINDS, read_params
from fedmem.weights.model_files import FOLDER, FROZEN, StoredModels, file_name, open_models, stored_models

_MANIFEST = "manifest.json"
_PLACE = "initial_weights"


@dataclass(frozen=True, kw_only=True)
class WeightsOrigin:
    """Weights in files.

    Attributes:
        text: The path as it was written.
        file: The file, or the file with the aggregates of one round of a run.
        run: The folder of the run; None for other files.
        round: The round of the run; -1 for other files.
        number: The run of the bank.
        more: Further files with weights: the frozen part of a run, or other parts of a model.
    """

    text: str
    file: Path
    run: Path | None = None
    round: int = -1
    number: int = 0
    more: tuple[Path, ...] = ()

    @property
    def title(self) -> str:
        """Its name for people."""
        if self.run is None:
            return self.text if self.file.name in self.text else f"{self.text} ({self.file.name})"
        return f"{self.run} (the aggregate of run {self.number} after round {self.round})"

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return (self.file, *self.more)

    def read(self) -> Params:
        """The tensors by name.

        Errors: `ComponentError` where a file is damaged, or holds more than weights.
        """
        try:
            return self._read_run() if self.run is not None else self._read_files()
        except ComponentError:
            raise
        except FedmemError as error:
            raise ComponentError(f"{_PLACE}.from", str(error)) from error

    def _read_files(self) -> Params:
        if self.text in MODELS:
            verified_folder(self.text, f"{_PLACE}.from")
        weights: Params = {}
        for file in self.files:
            weights |= read_params(file)
        return weights

    def _read_run(self) -> Params:
        assert self.run is not None
        manifest = _manifest(self.run)
        stored = next(entry for entry in _aggregates(self.run) if entry.round == self.round)
        with open_models(self.file, stored) as content:
            positions = [
                position
                for position, place in enumerate(zip(content.models.run, content.models.client, strict=True))
                if place == (self.number, -1)
            ]
            if not positions and self.number in content.models.run:
                raise ComponentError(
                    f"{_PLACE}.from",
                    f"{self.run} has no one aggregate in round {self.round}, since its clients keep layers of their "
                    "own; start from a run whose clients share all layers",
                )
            if not positions:
                runs = ", ".join(map(str, sorted(set(content.models.run))))
                message = f"{self.run} has no aggregate of run {self.number} in round {self.round}; choose from: {runs}"
                raise ComponentError(f"{_PLACE}.run", message)
            weights = content.params(positions[0])
        return {**read_frozen_file(self.run, manifest), **weights}


def find_origin(text: str, round_number: int | None = None, number: int | None = None) -> WeightsOrigin:
    """The weights that a path stands for.

    A path is a file of weights, the folder of a finished run, or a folder with files `*.safetensors`. Of a folder of
    finished runs, the newest one counts. `minilm` is the folder that `fedmem fetch` brought.

    Args:
        text: The path.
        round_number: The round of a run whose aggregate is meant; negative ones count from the last saved one, which is
            the default.
        number: The run of the bank; by default the first.

    Errors: `ComponentError` where there is nothing of the kind, or no such aggregate was saved.
    """
    path = Path(text).expanduser()
    if path.is_file():
        _refuse_choice(text, round_number, number)
        return WeightsOrigin(text=text, file=path)
    folder = model_folder(text)
    run = newest_run(folder)
    if run is not None:
        return _origin_in_run(text, run, -1 if round_number is None else round_number, number or 0)
    if text in MODELS:
        folder = verified_folder(text, f"{_PLACE}.from")
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        where = "has no finished run and no file *.safetensors" if folder.is_dir() else "does not exist"
        raise ComponentError(
            f"{_PLACE}.from",
            f"{folder.absolute()} {where}; give a finished run that saved its models, such as runs/pretrain, a file of "
            f"weights ({', '.join(KINDS)}), or the folder of a model",
        )
    _refuse_choice(text, round_number, number)
    return WeightsOrigin(text=text, file=files[0], more=tuple(files[1:]))


def newest_run(folder: Path) -> Path | None:
    """The folder itself if it is a finished run, or the run in it that finished last; None without any."""
    if (folder / _MANIFEST).is_file():
        return folder
    manifests = [file for file in folder.glob(f"*/{_MANIFEST}") if not file.parent.name.startswith(".")]
    return max(manifests, key=lambda file: file.stat().st_mtime_ns).parent if manifests else None


def read_frozen_file(run: Path, manifest: Mapping[str, Any]) -> Params:
    """The frozen tensors that a run stored with its models; none where it froze nothing.

    Errors: `RunError` where the file is missing, damaged or another one.
    """
    entry = manifest.get("frozen")
    if entry is None:
        return {}
    from fedmem.weights.model_files import check_stored_file

    file = run / FOLDER / FROZEN
    check_stored_file(file, entry)
    return read_params(file)


def _origin_in_run(text: str, run: Path, round_number: int, number: int) -> WeightsOrigin:
    rounds = sorted(entry.round for entry in _aggregates(run))
    if not rounds:
        raise ComponentError(
            f"{_PLACE}.from",
            f"{run} stored no aggregates; run it again with save={{models: {{rounds: [-1], levels: [global]}}}}",
        )
    chosen = rounds[round_number] if round_number < 0 and -round_number <= len(rounds) else round_number
    if chosen not in rounds:
        message = f"{run} stored no aggregate of round {round_number}; choose from: {', '.join(map(str, rounds))}"
        raise ComponentError(f"{_PLACE}.round", message)
    frozen = run / FOLDER / FROZEN
    return WeightsOrigin(
        text=text,
        file=run / FOLDER / file_name(chosen, "global"),
        run=run,
        round=chosen,
        number=number,
        more=(frozen,) if "frozen" in _manifest(run) else (),
    )


def _aggregates(run: Path) -> list[StoredModels]:
    """The stored files of aggregates of a run."""
    try:
        return [entry for entry in stored_models(_manifest(run), run / _MANIFEST) if entry.level == "global"]
    except ComponentError:
        raise
    except FedmemError as error:
        raise ComponentError(f"{_PLACE}.from", str(error)) from error


def _manifest(run: Path) -> dict[str, Any]:
    try:
        content = json.loads((run / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{run / _MANIFEST} is damaged; put a copy of the file back, or run the scenario again with --force"
        raise ComponentError(f"{_PLACE}.from", message) from error
    return content if isinstance(content, dict) else {}


def _refuse_choice(text: str, round_number: int | None, number: int | None) -> None:
    """Errors: `ComponentError` where a round or run of a plain file is asked for."""
    for name, value in (("round", round_number), ("run", number)):
        if value is not None:
            raise ComponentError(f"{_PLACE}.{name}", f"{text} is no finished run; leave {name} out")
