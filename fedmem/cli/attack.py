"""The command `attack`: one saved update, attacked from files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from fedmem.cli.app import Debug, app
from fedmem.cli.changes import changes_of
from fedmem.cli.errors import reporting
from fedmem.cli.options import options


@dataclass(frozen=True, kw_only=True)
class AttackOptions:
    """Arguments and options of `fedmem attack`."""

    before: Annotated[Path, typer.Argument(help="parameters before: .safetensors, .npz, or a state dict in .pt")]
    after: Annotated[Path, typer.Argument(help="parameters after, or the gradient (--gradient)")]
    model: Annotated[str, typer.Option(help="kind of model, or module:Class of a torch module of yours")]
    shape: Annotated[str, typer.Option(help="of one input, such as 1,28,28")]
    classes: Annotated[int, typer.Option(help="number of classes", min=1, max=10**6)]
    images: Annotated[int, typer.Option(help="how many examples shaped the update", min=1, max=10**6)]
    lr: Annotated[float, typer.Option(help="learning rate of the client")]
    steps: Annotated[
        int | None,
        typer.Option(help="local steps of the client, in all; left out: 1", min=1, max=10**6, show_default=False),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(
            help="instead of --steps: epochs x rows / --batch-size, rounded up in each epoch, are the steps",
            min=1,
            max=10**6,
            show_default=False,
        ),
    ] = None
    batch_size: Annotated[int | None, typer.Option(help="rows in a step; left out: all", show_default=False)] = None
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH=VALUE]...", help="fields of model or attack, e.g. attack.steps=2000", show_default=False
        ),
    ] = None
    attack: Annotated[str, typer.Option(help="kind of attack")] = "inverting_gradients"
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="the same as PATH=VALUE after the files"),
    ] = None
    labels: Annotated[str | None, typer.Option(help="of the examples, such as 3,5", show_default=False)] = None
    in_order: Annotated[bool, typer.Option("--in-order", help="the labels are in the order of training")] = False
    clients: Annotated[
        int | None,
        typer.Option(
            help="of how many clients the update is the mean; left out: 1", min=1, max=10**9, show_default=False
        ),
    ] = None
    mode: Annotated[
        str | None,
        typer.Option(help="of the model while the client trained, train or eval; left out: train", show_default=False),
    ] = None
    mean: Annotated[str | None, typer.Option(help="with which inputs are normalised", show_default=False)] = None
    std: Annotated[str | None, typer.Option(help="with which inputs are normalised", show_default=False)] = None
    gradient: Annotated[bool, typer.Option("--gradient", help="AFTER holds a gradient of the mean loss")] = False
    truth: Annotated[
        Path | None,
        typer.Option(help=".npz with the true inputs, its only array or `inputs`, to score", show_default=False),
    ] = None
    gallery: Annotated[
        Path | None,
        typer.Option(help=".npz with inputs that were not trained on, drawn like the true ones", show_default=False),
    ] = None
    seed: Annotated[int, typer.Option(help="of the attack's starts")] = 0
    controls: Annotated[
        int,
        typer.Option(help="simulated updates that show which matching distance is good; 0: none", min=0, max=100),
    ] = 3
    out: Annotated[Path, typer.Option(help="folder for the reconstructions")] = Path("attack")
    force: Annotated[bool, typer.Option("--force", help="replace the folder if it exists")] = False
    debug: Debug = False


@app.command("attack")
@options(AttackOptions)
def attack_saved(chosen_options: AttackOptions) -> None:
    """Attack one saved update: what does the difference between two models leak?"""
    with reporting():
        from fedmem.cli.attack_files import attack_files

        overrides = changes_of(chosen_options.changes, chosen_options.overrides, command="attack")
        typer.echo(attack_files(replace(chosen_options, overrides=overrides)))
