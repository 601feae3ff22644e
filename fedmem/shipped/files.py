"""The scenarios that fedmem ships, by name, and the data files beside them.

In a checkout they are the folder `scenarios/` of the repository. A wheel has them in this package.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from fedmem.wording import did_you_mean

_FOLDER = "scenarios"


@cache
def folder() -> Path:
    """The folder of the shipped scenarios.

    >>> (folder() / "quickstart.yaml").is_file()
    True
    """
    package = Path(__file__).resolve().parent
    in_wheel, in_checkout = package / _FOLDER, package.parents[1] / _FOLDER
    return in_wheel if in_wheel.is_dir() else in_checkout


def scenario_names() -> tuple[str, ...]:
    """The names of the shipped scenarios, sorted.

    >>> "quickstart" in scenario_names()
    True
    """
    return tuple(sorted(path.stem for path in folder().glob("*.yaml")))


def scenario_questions() -> dict[str, str]:
    """Name -> what a shipped scenario asks, the first line of its head that is neither a command nor its schema.

    >>> scenario_questions()["quickstart"][-1]
    '?'
    """
    questions = {}
    for name in scenario_names():
        with (folder() / f"{name}.yaml").open(encoding="utf-8") as lines:
            head = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
        sentences = (line for line in head if not line.startswith(("fedmem ", "yaml-language-server")))
        questions[name] = next(sentences, "")
    return questions


def find_scenario(name: str | Path) -> Path:
    """The file that a path or a name stands for.

    A text with a folder or a suffix is a path. A name stands for a file of that name in the current folder, or else for
    the file `NAME.yaml` there. Otherwise it stands for the scenario of that name that fedmem ships. Any other text
    stays as it is.

    >>> find_scenario("quickstart") == folder() / "quickstart.yaml"
    True
    >>> str(find_scenario("mine/quickstart.yaml"))
    'mine/quickstart.yaml'
    """
    path = Path(name)
    if not _is_name(name) or os.path.isfile(path):
        return path
    for candidate in (Path(f"{name}.yaml"), folder() / f"{name}.yaml"):
        if os.path.isfile(candidate):
            return candidate
    return path


def clash_note(name: str | Path) -> str:
    """Says that a file of the current folder is used instead of the shipped scenario of this name; empty if not.

    >>> clash_note("quickstart"), clash_note("mine/quickstart.yaml")
    ('', '')
    """
    shipped = folder() / f"{name}.yaml"
    used = find_scenario(name)
    if not _is_name(name) or used == shipped or not os.path.isfile(shipped):
        return ""
    return f"{name} is the file {used} of this folder, not the scenario that fedmem ships; that one is {shipped}"


def missing_text(name: str) -> str:
    """The error for a scenario file that does not exist.

    >>> "did you mean 'quickstart'?" in missing_text("quikstart")
    True
    """
    hint = did_you_mean(Path(name).stem, scenario_names())
    return (
        f"there is no such file{hint}. Give the path of a scenario such as mine.yaml, or the name of one that fedmem "
        f"ships, such as quickstart. All of them are in {folder()}"
    )


def data_path(name: str) -> Path:
    """The data file of a path; `scenarios/…` that the current folder lacks is the file that fedmem ships.

    >>> data_path("scenarios/patients.csv").is_file(), str(data_path("mine/table.csv"))
    (True, 'mine/table.csv')
    """
    path = Path(name).expanduser()
    if path.parts[:1] == (_FOLDER,) and ".." not in path.parts and not os.path.exists(path):
        shipped = folder().parent / path
        if os.path.isfile(shipped):
            return shipped
    return path


def _is_name(name: str | Path) -> bool:
    """Whether this is one word without a suffix; `-` is standard input."""
    path = Path(name)
    return str(name) == path.name and not path.suffix and str(name) not in ("", "-")
