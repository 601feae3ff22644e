"""Draw all figures of the experiments and the first figure of the README from their committed tables.

    python -m experiments.figures
    python -m experiments.figures --check
    python -m experiments.figures --quickstart runs/quickstart/<id>

Nothing is trained. `--check` draws nothing, and ends with 1 if a PNG is not the one of its tables. `--quickstart`
first writes `docs/memorisation.csv` from the folder of a finished quickstart.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from experiments import front_page
from fedmem.studies.experiment_figure import TableFigure

HERE = Path(__file__).resolve().parent


def all_figures() -> Mapping[Path, TableFigure]:
    """The figure of each folder that has one: `docs`, and the experiments."""
    figures = {front_page.FOLDER: front_page.FIGURE}
    for module in sorted(HERE.glob("*/figure.py")):
        figures[module.parent] = import_module(f"experiments.{module.parent.name}.figure").FIGURE
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw all figures, or check them; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="draw nothing; end with 1 if a PNG is not current")
    parser.add_argument("--quickstart", type=Path, metavar="FOLDER", help="folder of a finished quickstart")
    options = parser.parse_args(arguments)
    if options.quickstart:
        table = front_page.table_of(options.quickstart)
        table.to_csv(front_page.FOLDER / "memorisation.csv", index=False, float_format="%.5g")
    if options.check:
        stale = [folder.name for folder, figure in all_figures().items() if not figure.is_current(folder)]
        print("\n".join(f"{name}: the PNG is not current; run: make figures" for name in stale))
        return 1 if stale else 0
    for folder, figure in all_figures().items():
        print(figure.write(folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
