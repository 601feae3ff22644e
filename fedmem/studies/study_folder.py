"""The folder of a study: `run.py` with `STUDY`, its tables, figure and page."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

from fedmem.errors import Problem, ScenarioError
from fedmem.studies.study import Study
from fedmem.wording import did_you_mean

ROOT = "experiments"
"""The folder of studies in a clone."""

_ASSIGNS = re.compile(r"^STUDY\b", re.MULTILINE)


def study_names(root: Path = Path(ROOT)) -> tuple[str, ...]:
    """The names of all studies in a folder: of its folders whose `run.py` assigns `STUDY`.

    >>> study_names(Path("/nowhere"))
    ()
    """
    return tuple(sorted(path.parent.name for path in root.glob("*/run.py") if _ASSIGNS.search(path.read_text("utf-8"))))


def find_study(name: str) -> tuple[Study, Path]:
    """The study of a name, or of the path of a folder, and this folder.

    Its `run.py` is imported as a module of the folder above it, so that other processes can import it too.

    Errors: `ScenarioError` where there is none.
    """
    folder = (Path(ROOT) / name if name == Path(name).name else Path(name)).resolve()
    if not (folder / "run.py").is_file():
        names = study_names()
        where = f"choose from: {', '.join(names)}" if names else f"this folder has no {ROOT}/NAME/run.py; use a clone"
        raise _wrong(name, f"no such study{did_you_mean(name, names)}; {where}")
    module = _import_run(folder)
    study = vars(module).get("STUDY")
    if not isinstance(study, Study):
        raise _wrong(
            name,
            f"{folder / 'run.py'} has no STUDY = Study(...) of fedmem.studies.study; a program of its own is run by "
            f"python {folder / 'run.py'}",
        )
    return study, folder


def _import_run(folder: Path) -> ModuleType:
    """The module `run` of a folder: of the package that the folder is in, or else of the folder itself."""
    package = (folder.parent / "__init__.py").is_file()
    name = f"{folder.name}.run"
    root, name = (folder.parent.parent, f"{folder.parent.name}.{name}") if package else (folder.parent, name)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    return importlib.import_module(name)


def _wrong(name: str, message: str) -> ScenarioError:
    return ScenarioError([Problem(path="", message=message, source=name)])
