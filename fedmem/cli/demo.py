"""The command `demo`."""

from __future__ import annotations

import time

import typer

from fedmem.cli.app import Debug, app
from fedmem.cli.errors import print_errors, reporting
from fedmem.cli.terminal import wrap_line


@app.command()
def demo(debug: Debug = False) -> None:
    """Check this installation in half a minute: planted canaries must be found, and untrained ones must not."""
    with reporting():
        from fedmem.studies.demo import THRESHOLD, run_controls

        started = time.perf_counter()
        controls = run_controls(lambda line: typer.echo(line, err=True))
        for control in controls:
            name = "positive control" if control.is_planted else "negative control"
            typer.echo(f"{name}  {'passed' if control.has_passed else 'FAILED'}  {control.text}")
            for effect in control.effects:
                typer.echo(f"  {effect.text}")
        sentence = (
            f"Found means p of no memorisation at most {THRESHOLD}, by random inclusion drawn again. A control has two "
            f"such tests, so the chance of a false alarm is at most 1 in {round(1 / (2 * THRESHOLD)):,}."
        )
        typer.echo(wrap_line(sentence, "").replace("\n  ", "\n"))
        failed = [control for control in controls if not control.has_passed]
        if failed:
            print_errors([_failure(is_planted=control.is_planted) for control in failed])
            raise typer.Exit(1)
        seconds = time.perf_counter() - started
        typer.echo(f"Both controls passed in {seconds:.0f} s. Next: fedmem run quickstart")


def _failure(*, is_planted: bool) -> str:
    """The error of a failed control, with the remedy."""
    what = (
        "the positive control failed: canaries that were trained on are not found at both levels"
        if is_planted
        else "the negative control failed: an effect is reported for canaries that no client trained on"
    )
    return (
        f"error: {what}. Do not trust measurements of this installation. Run `fedmem doctor`, install fedmem again in "
        "a new environment, and report it if the control still fails"
    )
