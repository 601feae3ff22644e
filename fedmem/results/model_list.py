"""The saved models of a run, chosen by round, level, run and client, and read one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmem.contracts.arrays import Params
from fedmem.contracts.measurement import Level
from fedmem.errors import ComponentError, RunError
from fedmem.weights.model_files import FOLDER, ModelsOfRound, StoredModels, open_models, stored_models

if TYPE_CHECKING:
    from fedmem.results.read import Run


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """One saved model.

    Attributes:
        round: The round after which it was stored.
        level: `local` (what the client kept) or `global` (the aggregate).
        run: Its run.
        client: Its client; -1 for the aggregate.
        params: Its parameters, a state dict for the network of the scenario.
    """

    round: int
    level: Level
    run: int
    client: int
    params: Params


def models_of(
    run: Run, round_number: int | None, level: Level | None, run_number: int | None, client: str | int | None
) -> Iterator[SavedModel]:
    """See `Run.models`; the choice is checked at once, files when they are read."""
    files = stored_models(run.manifest, run.path / "manifest.json")
    if not files:
        raise RunError(
            f"{run.path} holds no models; run it again with save.models={{rounds: [-1]}}, which stores those of the "
            "last round"
        )
    rounds = sorted({stored.round for stored in files})
    if round_number is not None and round_number < 0:
        round_number = rounds[round_number] if -round_number <= len(rounds) else round_number
    _require("round_number", round_number, rounds)
    _require("level", level, sorted({stored.level for stored in files}))
    number = _client_number(run, client)
    chosen = [stored for stored in files if round_number in (None, stored.round) and level in (None, stored.level)]
    return _read(run, chosen, run_number, number)


def _require(name: str, value: object, choices: Sequence[object]) -> None:
    if value is not None and value not in choices:
        raise ComponentError(name, f"no model of {value} was saved; choose from {', '.join(map(str, choices))}")


def _client_number(run: Run, client: str | int | None) -> int | None:
    if client is None or (isinstance(client, int) and not isinstance(client, bool)):
        return client
    if client not in run.client_names:
        raise ComponentError("client", f"no client is called {client!r}; give its number, or a name of the data")
    return run.client_names.index(client)


def _read(run: Run, files: Sequence[StoredModels], run_number: int | None, client: int | None) -> Iterator[SavedModel]:
    found, runs, clients = False, set(), set()
    for stored in files:
        with open_models(run.path / FOLDER / stored.name, stored) as content:
            models = content.models
            runs |= set(models.run)
            clients |= set(models.client)
            for position in _positions(models, run_number, client):
                found = True
                yield SavedModel(
                    round=models.round,
                    level=models.level,
                    run=models.run[position],
                    client=models.client[position],
                    params=content.params(position),
                )
    if not found:
        _require("run", run_number, sorted(runs))
        _require("client", client, sorted(clients))
        raise ComponentError("client", f"no model of client {client} in run {run_number} was saved in this round")


def _positions(models: ModelsOfRound, run: int | None, client: int | None) -> list[int]:
    return [
        position
        for position, place in enumerate(zip(models.run, models.client, strict=True))
        if run in (None, place[0]) and client in (None, place[1])
    ]
