"""The command `doctor`."""

from __future__ import annotations

import typer

from fedmem.cli.app import Debug, app
from fedmem.cli.errors import print_errors, reporting
from fedmem.cli.terminal import width


@app.command()
def doctor(debug: Debug = False) -> None:
    """Say what is installed and whether it works: versions, devices, cores, cache, disk, extras. Uses no network."""
    with reporting():
        from fedmem.apps.installation import examine
        from fedmem.cli.plan_text import title_lines

        findings = examine()
        for finding in findings:
            for line in title_lines(finding.title, finding.text, width()):
                typer.echo(line)
        problems = [f"error: {problem}" for finding in findings for problem in finding.problems]
        if problems:
            print_errors(problems)
            raise typer.Exit(1)
        typer.echo("No problem was found. fedmem demo checks the measurements.")
