"""The folder of a study: `run.py` with `STUDY`, its tables, figure and page; and further studies of that page."""

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

RUN = "run.py"
"""The file of the study that a folder is named after."""

_ASSIGNS = re.compile(r"^STUDY\b", re.MULTILINE)


def study_names(root: Path = Path(ROOT)) -> tuple[str, ...]:
    """The names of all studies in a folder: `NAME` of `NAME/run.py`, and `NAME/PART` of `NAME/PART.py`.

    Only files that assign `STUDY` are one.

    >>> study_names(Path("/nowhere"))
    ()
    """
    files = [path for path in root.glob("*/*.py") if _ASSIGNS.search(path.read_text("utf-8"))]
    return tuple(sorted(path.parent.name + f"/{path.stem}" * (path.name != RUN) for path in files))


def find_study(name: str) -> tuple[Study, Path]:
    """The study of a name, or of a path, and the folder of its tables.

    It is the one in `run.py` of this folder, or that of a file without its ending, such as `adapters/choose`. The file
    is imported as a module of the folder above it, so that other processes can import it too.

    Errors: `ScenarioError` where there is none.
    """
    file = _file_of(name)
    if file is None:
        names = study_names()
        where = f"choose from: {', '.join(names)}" if names else f"this folder has no {ROOT}/NAME/{RUN}; use a clone"
        raise _wrong(name, f"no such study{did_you_mean(name, names)}; {where}")
    study = vars(_import_file(file)).get("STUDY")
    if not isinstance(study, Study):
        raise _wrong(name, f"{file} has no STUDY = Study(...) of fedmem.studies.study")
    return study, file.parent


def _file_of(name: str) -> Path | None:
    """The file of a study; a name without a folder is a folder of `experiments`."""
    if name == Path(name).name:
        files = [Path(ROOT) / name / RUN]
    else:
        paths = Path(name), Path(ROOT) / name
        files = [file for path in paths for file in (path / RUN, path.parent / f"{path.name}.py")]
    return next((file.resolve() for file in files if file.is_file()), None)


def _import_file(file: Path) -> ModuleType:
    """The module of a file: of the package that its folder is in, or else of the folder itself."""
    folder = file.parent
    package = (folder.parent / "__init__.py").is_file()
    name = f"{folder.name}.{file.stem}"
    root, name = (folder.parent.parent, f"{folder.parent.name}.{name}") if package else (folder.parent, name)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    return importlib.import_module(name)


def _wrong(name: str, message: str) -> ScenarioError:
    return ScenarioError([Problem(path="", message=message, source=name)])
