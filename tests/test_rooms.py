"""The shape of the package: short files, few at the top, and tests in folders of the rooms' names."""

from __future__ import annotations

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


def test_at_most_eight_files_lie_beside_the_rooms() -> None:
    assert len([path for path in (ROOT / "fedmem").iterdir() if path.is_file()]) <= 8


def test_folders_of_tests_are_rooms() -> None:
    others = {"added", "benchmarks", "docs", "experiments", "statistical", "strategies"}
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert folders - others <= ROOMS
    assert {path.name for path in (ROOT / "tests").glob("test_*.py")} <= {
        "test_interrupts.py", "test_processes.py", "test_rooms.py", "test_seeding.py", "test_words.py"
    }  # fmt: skip
