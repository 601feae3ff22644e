"""Words of a command after its files: changes such as `rounds=4`, the same as after `--set`."""

from __future__ import annotations

import os
from collections.abc import Sequence


def changes_of(words: Sequence[str] | None, settings: Sequence[str] | None, *, command: str) -> list[str]:
    """All changes of a command, those after `--set` first.

    >>> changes_of(["rounds=4"], ["runs=8"], command="run")
    ['runs=8', 'rounds=4']

    Errors: `ScenarioError` with every word that is no change.
    """
    from fedmem.errors import Problem, ScenarioError

    wrong = [word for word in words or () if not is_change(word)]
    if wrong:
        raise ScenarioError([Problem(path="", message=_no_change(word, command), source=repr(word)) for word in wrong])
    return [*(settings or ()), *(words or ())]


def short_changes(seed: int | None, runs: int | None, engine: str | None) -> list[str]:
    """The changes that have options of their own.

    >>> short_changes(3, None, None)
    ['seed=3']
    """
    values = (("seed", seed), ("runs", runs), ("speed.engine", engine))
    return [f"{path}={value}" for path, value in values if value is not None]


def files_and_changes(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files and the changes among words, each in their order.

    >>> files_and_changes(["a.yaml", "rounds=4", "b.yaml"])
    (['a.yaml', 'b.yaml'], ['rounds=4'])
    """
    return [word for word in words if not is_change(word)], [word for word in words if is_change(word)]


def is_change(word: str) -> bool:
    """Whether a word is `path=value`; a file of that name is a file.

    >>> is_change("client.lr=0.05"), is_change("quickstart.yaml")
    (True, False)
    """
    return "=" in word and not os.path.isfile(word)


def _no_change(word: str, command: str) -> str:
    from fedmem.shipped.files import find_scenario

    if os.path.isfile(find_scenario(word)):
        return f"is a second file, and fedmem {command} takes one; give each its own command"
    if os.path.isdir(word):
        return (
            "is a folder and no change; write changes as path=value. To compare two finished runs, read both with "
            "fedmem.read (docs/python.md)"
        )
    examples = {"attack": "attack.steps=2000", "measure": "'signals=[{kind: el2n}]'"}
    example = examples.get(command, "rounds=4 client.lr=0.05")
    return f"is neither a file nor a change; write changes after the file as path=value, such as {example}"
