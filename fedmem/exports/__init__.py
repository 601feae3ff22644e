"""Formats of other tools that finished runs are exported to: one file each, named as `fedmem export --to` names it."""

from __future__ import annotations

from pathlib import Path


def target_names() -> list[str]:
    """The names of all targets: the files of this folder. None of them is imported.

    >>> target_names()
    ['csv', 'mlflow', 'tensorboard', 'wandb', 'weights']
    """
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
