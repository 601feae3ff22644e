"""From the options and files of `fedmem attack` to one call of `fedmem.attack`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.apps import attack as attacking
from fedmem.apps.attack import AttackResult, Known
from fedmem.apps.attack_scores import Images
from fedmem.cli.attack_page import attack_page
from fedmem.cli.attack_text import granted_text, outcome_lines, report_text
from fedmem.contracts.attack import ReconstructionAttack
from fedmem.contracts.model import Model, TableModel, TextModel
from fedmem.errors import ComponentError, FedmemError, FolderError, Problem, ScenarioError
from fedmem.guards.guarding import NOT_OURS, cause_of
from fedmem.modalities.undescribed import modality_of_shape
from fedmem.processes import cores, share_processes
from fedmem.reporting.drawing import ImageRow, sheet
from fedmem.results.folder import check_place, writing
from fedmem.results.provenance import versions
from fedmem.scenario import catalogue
from fedmem.scenario.overrides import Origin, override

if TYPE_CHECKING:
    from torch import nn

    from fedmem.cli.attack import AttackOptions


def attack_files(options: AttackOptions) -> str:
    """Attack two files, write the result to the folder `out`, and describe it in a few lines."""
    import torch

    check_place(options.out, force=options.force)
    if not 0 <= options.seed < 2**63:
        raise ComponentError("--seed", f"should be from 0 to 2^63 - 1, got {options.seed}")
    knowledge = _parse_known(options)
    tree: dict[str, Any] = {"model": {"kind": options.model}, "attack": {"kind": options.attack}}
    problems = override(tree, options.overrides or (), Origin("the command", {}))
    if problems:
        raise ScenarioError(problems)
    odd = sorted(set(tree) - {"model", "attack"})
    if odd:
        message = "is no field of model or attack; write model.NAME=VALUE or attack.NAME=VALUE"
        raise ScenarioError([Problem(path=odd[0], message=message)])
    for name in ("model", "attack"):
        if not isinstance(tree[name], dict):
            problem = f"should be a mapping of a kind and its fields, got {tree[name]!r}; change one field of it"
            raise ScenarioError([Problem(path=name, message=problem, source=f"--set {name}=")])
    built = _attack(tree["attack"])
    with share_processes(max(1, cores() // torch.get_num_threads())):
        done = attacking.attack(
            options.before,
            options.after,
            model=_model(tree["model"], knowledge),
            attack=built,
            known=knowledge,
            gradient=options.gradient,
            truth=_inputs(options.truth),
            gallery=_inputs(options.gallery),
            seed=options.seed,
            controls=options.controls,
        )
    settings = {
        "versions": versions(),
        "attack": catalogue.dump(built),
        "model": tree["model"],
        "known": dataclasses.asdict(knowledge),
        "gradient": options.gradient,
        **{
            name: _file(file)
            for name, file in (("truth", options.truth), ("others", options.gallery))
            if file is not None
        },
    }
    lines = outcome_lines(done, knowledge, options, built)
    write(done, options.out, settings, lines, force=options.force)
    return report_text(done, knowledge, options, built, options.out)


def _parse_known(options: AttackOptions) -> Known:
    """From text to numbers."""
    if options.epochs is not None and options.steps is not None:
        raise ComponentError("--epochs", "gives the number of steps already; leave out --steps or --epochs")
    clients = options.clients or 1
    steps = options.steps or 1
    if options.epochs is not None:
        rows = -(-options.images // clients)
        steps = options.epochs * -(-rows // min(options.batch_size or rows, rows))
    return Known(
        input_shape=tuple(_parse_whole_numbers("--shape", options.shape)),
        num_classes=options.classes,
        num_images=options.images,
        lr=options.lr,
        steps=steps,
        batch_size=options.batch_size,
        labels=None if options.labels is None else tuple(_parse_whole_numbers("--labels", options.labels)),
        in_order=options.in_order,
        clients=clients,
        mode=_mode(options.mode or "train"),
        mean=_numbers("--mean", options.mean),
        std=_numbers("--std", options.std),
    )


def _mode(text: str) -> Any:
    if text not in ("train", "eval"):
        raise ComponentError("--mode", f"should be train or eval, got {text!r}")
    return text


def _parse_whole_numbers(option: str, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ComponentError(option, f"should be whole numbers with commas between, got {text!r}") from error
    if option == "--shape" and min(numbers) < 1:
        raise ComponentError(option, f"sizes should be at least 1, got {text!r}")
    if math.prod(max(1, abs(number)) for number in numbers if option == "--shape" or abs(number) > _MAX) > _MAX:
        raise ComponentError(option, f"should stay below {_MAX}, in all where it is a shape, got {text!r}")
    return numbers


_MAX = 10**7
"""Values of one input, and the largest label, beyond what any model takes."""


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    try:
        return () if text is None else tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ComponentError(option, f"should be numbers with commas between, got {text!r}") from error


def _attack(tree: Mapping[str, Any]) -> ReconstructionAttack:
    """The attack that `--attack` and `--set attack.…` describe."""
    try:
        attack: ReconstructionAttack = catalogue.build("attack", tree, protocols=(ReconstructionAttack,))
    except ScenarioError as error:
        raise _scenario_error("attack", error) from error
    return attack


def _scenario_error(path: str, error: ScenarioError) -> ScenarioError:
    return ScenarioError([dataclasses.replace(p, path=f"{path}.{p.path}" if p.path else path) for p in error.problems])


def _model(tree: Mapping[str, Any], knowledge: Known) -> nn.Module:
    """One of our models, or a torch module of the user's, made with the fields of `--set model.…`."""
    kind = str(tree.get("kind"))
    try:
        maker = catalogue.build("model", tree)
    except ScenarioError as error:
        raise _scenario_error("model", error) from error
    if isinstance(maker, TableModel) and not isinstance(maker, Model):
        raise ComponentError("model", f"{kind} needs to know the columns of a table; attack it inside a scenario")
    if isinstance(maker, TextModel):
        raise ComponentError("model", f"{kind} needs to know the vocabulary of texts; attack it inside a scenario")
    try:
        built: nn.Module = maker.build(knowledge.input_shape, knowledge.num_classes)
    except (FedmemError, *NOT_OURS):
        raise
    except BaseException as error:
        # Somebody else's class can fail in any way; whatever it is, it is what the user has to mend.
        fields = {key: value for key, value in tree.items() if key != "kind"}
        raise ComponentError(
            "model", f"{kind} cannot be made with {fields or 'no arguments'}: {cause_of(error)}; "
            "give its arguments as model.NAME=VALUE"
        ) from error  # fmt: skip
    return built


def _file(file: Path) -> dict[str, str]:
    """Which file it was, wherever it lay."""
    return {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _inputs(file: Path | None) -> Images | None:
    """The array `inputs`, or the only one, of an .npz."""
    if file is None:
        return None
    try:
        with file.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise FolderError(f"{file}: is one array; save it as an .npz with np.savez(file, inputs=…)")
            names = loaded.files
            if "inputs" not in names and len(names) != 1:
                raise FolderError(f"{file}: has no array `inputs`, but {', '.join(names) or 'nothing'}")
            return np.asarray(loaded["inputs" if "inputs" in names else names[0]], dtype=np.float32)
    except FileNotFoundError as error:
        raise FolderError(f"{file}: there is no such file") from error
    except (OSError, ValueError, TypeError, EOFError, AttributeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise FolderError(f"{file}: is no .npz of numbers ({error}); save it with np.savez(file, inputs=…)") from error


MAX_IMAGES = 16
"""Images on a sheet: the first ones, not the best ones."""


def write(
    done: AttackResult, folder: Path, settings: Mapping[str, Any], lines: Sequence[str] = (), *, force: bool = False
) -> Path:
    """`reconstruction.npz`, `attack.json`, `sheet.png` and `report.html` in a new folder, whole or not at all.

    `settings` are all that was given, so that the attack can be made again from `attack.json` and its files. `lines`
    are the outcome in words, for the page.
    """
    with writing(folder, force=force) as place:
        with (place / "reconstruction.npz").open("wb") as file:
            np.savez(file, inputs=done.found.inputs, labels=done.found.labels)
        facts = {**settings, **_json_facts(done)}
        (place / "attack.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        subtitle = (
            f"granted: {granted_text(done.knows)}; clients: {done.clients}; match: {done.match.verdict} "
            f"(distance {done.found.distance:.3g})"
        )
        rows = _image_rows(done)
        image = sheet("What the update leaks", {"": rows[:MAX_IMAGES]}, subtitle)
        (place / "sheet.png").write_bytes(image)
        page = attack_page(lines, rows[:MAX_IMAGES], facts, total=len(rows))
        (place / "report.html").write_bytes(page)
    return folder


def _json_facts(done: AttackResult) -> dict[str, Any]:
    """All but images; what is no number is left out, since JSON has no word for it."""
    scores = [
        {name: getattr(score, name) for name in ("identified", "margin", "psnr", "place")} for score in done.scores
    ]
    return {
        "knows": done.knows,
        "clients": done.clients,
        "match": {
            "verdict": done.match.verdict,
            "as_stated": list(done.match.as_stated),
            "misstated": list(done.match.misstated),
            "worked": list(done.match.worked),
            "worked_otherwise": list(done.match.worked_otherwise),
            **{name: value for name in ("limit", "reverse") if np.isfinite(value := getattr(done.match, name))},
        },
        **({"notes": list(done.notes)} if done.notes else {}),
        "distance": done.found.distance if np.isfinite(done.found.distance) else None,
        "labels": done.found.labels.tolist(),
        **({"not_recovered": done.found.note} if done.found.note else {}),
        "gallery": done.gallery_size,
        "scores": [{name: value for name, value in score.items() if np.isfinite(value)} for score in scores],
        **done.origin,
    }


def _image_rows(done: AttackResult) -> list[ImageRow]:
    """The reconstructions, each beside its true image where that is known."""
    reconstruction, truth = done.found, done.truth
    modality = modality_of_shape(reconstruction.inputs.shape[1:])
    drawn: dict[str, Any] = {"draw": modality.draw, "pixels": modality.pixels}
    if truth is None:
        grey = np.full(reconstruction.inputs.shape[1:], 0.5, dtype=np.float32)
        return [
            ImageRow(original=None, reconstruction=image, prior=grey, label=f"label {label}", caption="", **drawn)
            for image, label in zip(reconstruction.inputs, reconstruction.labels.tolist(), strict=True)
        ]
    return [
        ImageRow(
            original=truth[j],
            reconstruction=reconstruction.inputs[score.place],
            prior=score.prior,
            label=f"{j}",
            caption=f"{score.psnr:.1f} dB ({score.margin:+.1f})",
            **drawn,
        )
        for j, score in enumerate(done.scores)
    ]
