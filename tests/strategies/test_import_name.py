"""Strategies are imported as `fedmem.strategies`, whatever else is called `strategies`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

import fedmem.strategies
from fedmem.results.provenance import code
from tests.cohorts import every_strategy
from tests.tiny import tiny

ROOT = Path(__file__).parents[2]
RAISES = "raise RuntimeError('this is not the package that you want')\n"
HOSTILE = ["strategies.py", "strategies/__init__.py"]
USE = """
from fedmem.scenario import catalogue
import fedmem.strategies
kinds = catalogue.kinds("strategy")
print(len(kinds), catalogue.load("strategy", "fedadam").__module__, fedmem.strategies.__path__[0])
"""


def plant(folder: Path, hostile: str) -> None:
    """Write a module or package `strategies` that raises when it is imported."""
    (folder / hostile).parent.mkdir(parents=True, exist_ok=True)
    (folder / hostile).write_text(RAISES)


def python(*arguments: str, cwd: Path, path: Path = ROOT) -> str:
    """What a fresh interpreter prints that has `cwd` first and `path` next on its path."""
    environment = os.environ | {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("hostile", [pytest.param(HOSTILE[0], marks=pytest.mark.slow), HOSTILE[1]])
def test_a_foreign_package_strategies_is_never_imported(hostile: str, tmp_path: Path) -> None:
    plant(tmp_path, hostile)
    with pytest.raises(AssertionError, match="not the package that you want"):
        python("-c", "import strategies", cwd=tmp_path)  # it does come first
    number, module, place = python("-c", USE, cwd=tmp_path).split()
    assert (int(number), module) == (len(every_strategy()), "fedmem.strategies.fedadam")
    assert Path(place).resolve() == ROOT / "strategies"


def test_no_module_is_imported_under_two_names() -> None:
    every_strategy()
    files = {
        name: Path(file).resolve()
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in ("fedmem", "strategies") and (file := getattr(module, "__file__", None))
    }
    assert len([name for name in files if name.startswith("fedmem.strategies.")]) > len(every_strategy())
    assert [file for file, count in Counter(files.values()).items() if count > 1] == []


def test_strategies_beside_the_package_are_found(tmp_path: Path) -> None:
    """As in a Flower bundle, and in a checkout whose git writes a link as a file of text."""
    shutil.copytree(ROOT / "strategies", tmp_path / "strategies", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "fedmem").mkdir()
    shutil.copy(ROOT / "fedmem" / "__init__.py", tmp_path / "fedmem")
    (tmp_path / "fedmem" / "strategies").write_text("../strategies")
    code = "import fedmem.strategies; print(fedmem.strategies.__file__)"
    assert Path(python("-S", "-c", code, cwd=tmp_path, path=tmp_path)) == tmp_path / "strategies" / "__init__.py"


def test_hash_of_the_code_covers_strategies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished shards of another version of a strategy are trained again."""
    copied = shutil.copytree(ROOT / "strategies", tmp_path / "strategies", ignore=shutil.ignore_patterns("__pycache__"))
    before = code()
    monkeypatch.setattr(fedmem.strategies, "__path__", [str(copied)])
    assert code() == before  # wherever the folder lies
    (copied / "fedmedian.py").write_text((copied / "fedmedian.py").read_text("utf-8") + "\n")
    assert code() != before


@pytest.mark.slow
@pytest.mark.parametrize("hostile", [pytest.param(HOSTILE[0], marks=pytest.mark.nightly), HOSTILE[1]])
def test_a_scenario_runs_beside_a_foreign_package(hostile: str, tmp_path: Path) -> None:
    plant(tmp_path, hostile)
    (tmp_path / "mine.yaml").write_text(tiny().to_yaml())
    assert Path(python("-m", "fedmem", "run", "mine.yaml", "--quiet", cwd=tmp_path)).name == tiny().id


@pytest.mark.slow
@pytest.mark.parametrize("hostile", [pytest.param(HOSTILE[0], marks=pytest.mark.nightly), HOSTILE[1]])
def test_spawned_workers_never_import_it(hostile: str, tmp_path: Path) -> None:
    plant(tmp_path, hostile)
    (tmp_path / "script.py").write_text(
        "from multiprocessing import get_context\n"
        "from fedmem.scenario.catalogue import load\n"
        "def work(kind):\n    return load('strategy', kind).__module__\n"
        "if __name__ == '__main__':\n"
        "    with get_context('spawn').Pool(1) as pool:\n        print(pool.map(work, ['krum']))\n"
    )
    assert python("script.py", cwd=tmp_path) == "['fedmem.strategies.krum']"


@pytest.mark.slow
def test_a_flower_bundle_has_its_own_strategies(tmp_path: Path) -> None:
    """What `flwr run .` sends: the files of the bundle, unpacked, before a foreign package on the path."""
    bundle, foreign = tmp_path / "bundle", tmp_path / "foreign"
    plant(foreign, HOSTILE[1])
    python("-m", "flwr.cli.app", "build", "--app", str(ROOT), cwd=tmp_path)
    (file,) = tmp_path.glob("*.fab")
    with zipfile.ZipFile(file) as fab:
        names = set(fab.namelist())
        fab.extractall(bundle)
    shipped = {f"strategies/{path.name}" for path in (ROOT / "strategies").glob("*.py")}
    assert {name for name in names if "strategies/" in name} == shipped
    page = "from fedmem.reporting.rendering import render\nassert b'fedmem report FOLDER' in render('run.html')"
    code = f"{USE}\nfrom fedmem.apps.flower_app import server_app, client_app\n{page}"
    number, module, place = python("-c", code, cwd=bundle, path=foreign).split()
    assert (int(number), module) == (len(every_strategy()), "fedmem.strategies.fedadam")
    assert Path(place) == bundle / "strategies"


def test_fedmem_strategies_is_the_folder_of_the_repository() -> None:
    assert Path(fedmem.strategies.__path__[0]).resolve() == ROOT / "strategies"
