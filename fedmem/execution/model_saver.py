"""Stores the models of a run that its scenario saves, as they are looked at."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fedmem.contracts.evidence import Transition
from fedmem.results.folder import explaining_disk
from fedmem.scenario.saving import SaveModels
from fedmem.weights.model_files import ModelsOfRound, write_models


class ModelSaver:
    """Writes what is kept of observed transitions, one file for each round and level; nothing stays in memory."""

    def __init__(self, save: SaveModels, folder: Path) -> None:
        """Makes an empty folder for these models."""
        self._save = save
        self._folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    def __call__(self, transitions: Sequence[Transition]) -> None:
        """Stores the models of one round and level, in their order, if they are to be saved.

        Errors: `RunError` where the disk is full.
        """
        first = transitions[0]
        if first.round not in self._save.rounds or first.level not in self._save.levels:
            return
        chosen = [each for each in transitions if self._save.runs is None or each.run < self._save.runs]
        if not chosen:
            return
        models = ModelsOfRound(
            round=first.round,
            level=first.level,
            run=tuple(each.run for each in chosen),
            client=tuple(each.client for each in chosen),
            num_examples=tuple(each.num_examples for each in chosen),
            clients=tuple(each.clients for each in chosen),
        )
        like = first.kept
        size = len(chosen) * sum(value.numel() * value.element_size() for value in like.values())
        with explaining_disk(self._folder, size):
            write_models(self._folder / models.name, models, like, lambda name: (each.kept[name] for each in chosen))
