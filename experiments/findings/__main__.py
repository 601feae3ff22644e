"""Write the table of all findings from the tables of the studies, its figure and its page.

    python -m experiments.findings
    python -m experiments.findings --tables build/findings --results build/findings

Nothing is trained. With `--tables`, the tables are those of a rerun with other seeds, and the findings that changed are
printed. It ends with 1 if a verdict changed its sign.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.findings.figure import FIGURE
from experiments.findings.points import FINDINGS
from fedmem.studies.experiment import write_results
from fedmem.studies.findings import changes_of, findings_table, summary
from fedmem.studies.page_text import write_page

HERE = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the findings; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, default=HERE.parent, help="a folder with the tables of each study")
    parser.add_argument("--results", type=Path, default=HERE, help="where the table, figure and page go")
    options = parser.parse_args(arguments)
    table = findings_table(FINDINGS, options.tables)
    write_results(options.results, {"findings": table, "points": summary(table)}, [FIGURE], digits=4)
    write_page(options.results)
    print(summary(table).to_string(index=False))
    if options.tables.resolve() == HERE.parent:
        return 0
    changes = changes_of(table, pd.read_csv(HERE / "findings.csv"))
    changes.to_csv(options.results / "changes.csv", index=False, float_format="%.4g")
    print(f"{len(changes)} of {len(table)} verdicts changed, {changes.reversed.sum()} of them in sign")
    print(changes[["point", "claim", "data", "level", "verdict_before", "verdict"]].to_string(index=False))
    return int(changes.reversed.any())


if __name__ == "__main__":
    raise SystemExit(main())
