"""The shape of the package: short files, few at the top, and tests in folders of the rooms' names."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = {path.parent.name for path in (ROOT / "fedmem").glob("*/__init__.py")}


def too_long(root: Path, most: int = 400) -> list[str]:
    """The Python files below a folder with more lines than that."""
    return sorted(path.name for path in root.rglob("*.py") if len(path.read_text("utf-8").splitlines()) > most)


def test_no_file_is_longer_than_400_lines(tmp_path: Path) -> None:
    assert too_long(ROOT / "fedmem") + too_long(ROOT / "strategies") == []
    (tmp_path / "long.py").write_text("pass\n" * 401)
    (tmp_path / "short.py").write_text("pass\n" * 400)
    assert too_long(tmp_path) == ["long.py"]


def test_no_more_than_eight_files_lie_beside_the_rooms() -> None:
    assert len([path for path in (ROOT / "fedmem").iterdir() if path.is_file()]) <= 8


def test_folders_of_tests_are_rooms() -> None:
    others = {"added", "benchmarks", "docs", "experiments", "statistical", "strategies"}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert folders - others <= ROOMS
    without_module = {"test_nightly.py", "test_rooms.py", "test_code_strings.py", "test_words.py", "test_prose.py"}
    without_module |= {"test_summaries.py"}
    assert {path.name for path in (ROOT / "tests").glob("test_*.py")} - without_module <= {
        f"test_{path.stem}.py" for path in (ROOT / "fedmem").glob("*.py")
    }


def new_files(root: Path) -> set[str]:
    """Files of a clone that are not committed: the contract tests alone judge a component that was just added."""
    command = ["git", "ls-files", "--others", "--exclude-standard"]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return set()
    return set(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines())


def modules_without_tests(root: Path) -> list[str]:
    """Committed modules that define a function or a class and have no `tests/<room>/test_<module>.py`."""
    found, new = [], new_files(root)
    for base, tests in (("fedmem", root / "tests"), ("strategies", root / "tests" / "strategies")):
        for path in sorted((root / base).rglob("*.py")):
            tree = ast.parse(path.read_text("utf-8"))
            runs = any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in tree.body)
            place = tests / path.relative_to(root / base).parent / f"test_{path.stem.lstrip('_')}.py"
            name = path.relative_to(root).as_posix()
            tested = name in new or (place.exists() and names_of_tests(place))
            if runs and not path.stem.startswith("__") and not tested:
                found.append(name)
    return found


def names_of_tests(path: Path) -> list[str]:
    """The test functions of a file."""
    return re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text("utf-8"), flags=re.MULTILINE)


def test_every_module_has_its_test_file(tmp_path: Path) -> None:
    assert modules_without_tests(ROOT) == []
    for place in ("fedmem/room", "strategies", "tests/room", "tests/strategies"):
        (tmp_path / place).mkdir(parents=True)
    for name in ("fedmem/room/_one.py", "fedmem/room/two.py", "strategies/three.py"):
        (tmp_path / name).write_text("def work():\n    return 1\n")
    (tmp_path / "fedmem/room/constants.py").write_text("ONE = 1\n")
    (tmp_path / "tests/room/test_one.py").write_text("def test_work():\n    pass\n")
    (tmp_path / "tests/room/test_two.py").write_text("def help():\n    pass\n")
    assert modules_without_tests(tmp_path) == ["fedmem/room/two.py", "strategies/three.py"]
    for arguments in (["init", "-q"], ["add", "fedmem"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    assert modules_without_tests(tmp_path) == ["fedmem/room/two.py"]


def test_names_of_tests_have_no_more_than_60_characters(tmp_path: Path) -> None:
    long = [name for path in (ROOT / "tests").rglob("test_*.py") for name in names_of_tests(path) if len(name) > 60]
    assert long == []
    file = tmp_path / "test_x.py"
    body = "():\n    pass\n"
    file.write_text(f"def test_{'a' * 55}{body}\n\nclass TestX:\n    def test_{'b' * 56}(self):\n        pass\n")
    assert [len(name) for name in names_of_tests(file)] == [60, 61]


def test_types_are_checked_in_every_folder_with_code() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["mypy"]
    visible = (path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != ".")
    # strategies are checked under the name by which they are imported
    assert (ROOT / "fedmem" / "strategies").resolve() == (ROOT / "strategies").resolve()
    assert {path.name for path in visible if any(path.rglob("*.py"))} - {"strategies"} == set(settings["files"])
    assert settings["strict"]
    assert not any("ignore_errors" in part for part in (settings, *settings["overrides"]))
