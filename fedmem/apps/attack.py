"""Attacks on updates that were saved or seen anywhere: what the difference between two models leaks."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fedmem.apps.array_names import app_mismatch, names_in_model, rename_arrays
from fedmem.apps.attack_notes import contradictions, evaluation_mode, fewer_inputs
from fedmem.apps.attack_scores import Images, Score, scores
from fedmem.apps.match_control import Client, Match, clip_distance, compare, make_controls, reverse_update
from fedmem.apps.plain_logits import add_plain_outputs, use_plain_attention
from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.attack import GradientTarget, Reconstruction, ReconstructionAttack
from fedmem.contracts.model import frozen_tensors, trained_parameters
from fedmem.contracts.training_mode import layers_with_statistics
from fedmem.contracts.validation_of_measures import reconstruct
from fedmem.errors import TargetError, first_line
from fedmem.modalities.undescribed import modality_of_shape
from fedmem.seeding import stream

if TYPE_CHECKING:
    from torch import nn


BY_STATISTICS = "+statistics"
"""The end of `knows` where the attack reads BatchNorm in evaluation mode, by running statistics."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """The adversary's knowledge of the work behind an update; an attack sees only the part that it declares to use.

    Fields

    - `input_shape`, `num_classes`: of the model.
    - `num_images`: examples that shaped the update, of all clients together.
    - `lr`, `steps`: of the client's SGD; the update is read as `-lr * steps` times a mean gradient.
    - `batch_size`: rows in a step; if left out, all of them.
    - `labels`: of the examples, in any order.
    - `in_order`: whether they are in the order in which the client trained on them, the same order in every epoch.
    - `clients`: of how many clients' work the update is the mean.
    - `mean`, `std`: with which the app normalises its inputs, for each channel; attacks look for inputs in [0, 1].
    - `mode`: of the model while the client trained; layers such as dropout make the two differ.

    >>> Known(input_shape=(4,), num_classes=3, num_images=2, lr=0.1).description
    'lr+steps+count'
    """

    input_shape: tuple[int, ...]
    num_classes: int
    num_images: int
    lr: float
    steps: int = 1
    batch_size: int | None = None
    labels: tuple[int, ...] | None = None
    in_order: bool = False
    clients: int = 1
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    mode: Literal["train", "eval"] = "train"

    def __post_init__(self) -> None:
        for name in ("num_images", "num_classes", "steps", "clients"):
            if getattr(self, name) < 1:
                raise TargetError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.lr < np.inf:
            raise TargetError(
                f"lr must be above 0 and finite, got {self.lr}; an attack that looks at directions alone needs any one"
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise TargetError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.labels is not None and len(self.labels) != self.num_images:
            raise TargetError(f"{len(self.labels)} labels for {self.num_images} images; give as many")
        wrong = [label for label in self.labels or () if not 0 <= label < self.num_classes]
        if wrong:
            raise TargetError(f"label {wrong[0]} is none of 0 .. {self.num_classes - 1}")
        if self.in_order and self.labels is None:
            raise TargetError("in_order says that the labels are in the order of training: give labels as well")
        if len(self.mean) != len(self.std) or any(not 0 < scale < np.inf for scale in self.std):
            raise TargetError("mean and std must be given together, one number for each channel, and std above 0")
        if not all(map(np.isfinite, self.mean)):
            raise TargetError(f"mean must be finite, got {self.mean}")

    @property
    def description(self) -> str:
        """The knowledge that every attack is granted, as a report names it."""
        return "lr+steps+count"

    def batches(self) -> IntArray | None:
        """(steps, batch_size) places in the sorted labels, epoch after epoch; None where the order is not known."""
        if not self.in_order:
            return None
        width = min(self.batch_size or self.num_images, self.num_images)
        place = np.empty(self.num_images, dtype=np.int64)
        place[np.argsort(np.asarray(self.labels), kind="stable")] = np.arange(self.num_images)
        epoch = np.full((-(-self.num_images // width), width), -1, dtype=np.int64)
        epoch.reshape(-1)[: self.num_images] = place
        return np.tile(epoch, (-(-self.steps // len(epoch)), 1))[: self.steps]


def target_of(
    before: Params, after: Params, model: nn.Module, known: Known, *, gradient: bool = False
) -> GradientTarget:
    """The input of an attack: the update `after - before`, or `after` itself if it is already a `gradient`.

    The model is copied, put into the mode that the client trained in, and given the normalisation of the app. Its
    frozen parameters and buffers are those of `before`, where that has them. The target is the update of the others.

    Errors: `TargetError` where nothing can be read from the update, or where the model differs from call to call.
    """
    from fedmem.clients.sgd import Sgd

    batches = known.batches()
    algorithm = Sgd(lr=known.lr, steps=known.steps, batch_size=known.batch_size or known.num_images)
    scale = -1.0 / (known.lr * known.steps)
    prepared = copy_prepared_model(model, known)
    frozen = {name: before[name] for name in frozen_tensors(model) if name in before}
    prepared.load_state_dict(frozen, strict=False)
    before, after = ({name: value for name, value in part.items() if name not in frozen} for part in (before, after))
    update = None if gradient else {name: after[name].double() - before[name].double() for name in before}
    return GradientTarget(
        model=prepared,
        params=before,
        gradient=after if update is None else {name: scale * value for name, value in update.items()},
        update=update,
        num_images=known.num_images,
        input_shape=known.input_shape,
        num_classes=known.num_classes,
        modality=modality_of_shape(known.input_shape),
        knows=f"{known.description}{BY_STATISTICS if layers_with_statistics(model) else ''}",
        clients=known.clients,
        labels=None if known.labels is None else np.sort(np.asarray(known.labels, dtype=np.int64)),
        algorithm=algorithm,
        batches=batches,
    )


def copy_prepared_model(model: nn.Module, known: Known) -> nn.Module:
    """A copy in the client's mode that normalises its inputs first.

    Layers with running statistics are in evaluation mode, whatever the client's was: nobody but the client knows the
    means and variances of its batches.
    """
    import torch

    if not trained_parameters(model):
        raise TargetError(
            "all parameters of the model are frozen (requires_grad is False), so that no client trained any. Set "
            "requires_grad_(True) on those that the client trained"
        )
    prepared = add_plain_outputs(copy.deepcopy(model)).train(known.mode == "train")
    use_plain_attention(prepared)
    for layer in layers_with_statistics(prepared).values():
        layer.eval()
    if known.mean:
        channels = (-1, *[1] * (len(known.input_shape) - 1))
        mean, std = (torch.tensor(values, dtype=torch.float32).reshape(channels) for values in (known.mean, known.std))
        if mean.numel() not in (1, known.input_shape[0]):
            raise TargetError(
                f"mean has {mean.numel()} numbers for inputs {known.input_shape}; give one for each channel"
            )
        prepared.register_forward_pre_hook(lambda _, inputs: ((inputs[0] - mean.to(inputs[0])) / std.to(inputs[0]),))
    # two inputs, since some layers refuse a batch of one while they train
    trial = torch.full((2, *known.input_shape), 0.5)
    try:
        with torch.no_grad():
            shape = tuple(copy.deepcopy(prepared)(trial).shape)
    except Exception as error:  # the user's own model can fail in any way
        reason = first_line(error)
        if any(isinstance(part, torch.nn.Embedding) for part in prepared.modules()):
            raise TargetError(
                f"the model reads token numbers as whole numbers, as language models do ({reason}). Attack language "
                "models inside a scenario, by the probe leakage with the attack tag, which also scores texts. A model "
                "that classifies texts must make its inputs whole itself, by x.long()"
            ) from error
        raise TargetError(f"the model cannot be called on inputs of shape {known.input_shape}: {reason}") from error
    if shape != (2, known.num_classes):
        raise TargetError(f"the model gives outputs of shape {shape[1:]} for {known.num_classes} classes")
    return prepared


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """The result of an attack: the reconstruction, the adversary's knowledge, and scores if the truth is known.

    `match` says whether the update was matched at all. If it was not, the attack says nothing about safety.
    `notes` are what in the files, or in the number of true inputs, contradicts what is known.
    """

    found: Reconstruction
    knows: str
    clients: int
    match: Match
    notes: tuple[str, ...] = ()
    scores: Sequence[Score] = ()
    truth: Images | None = None
    gallery_size: int = 0
    origin: Mapping[str, Any] = field(default_factory=dict)


def attack(  # noqa: PLR0913 - options for users, all by name
    before: Params | Path,
    after: Params | Path,
    *,
    model: nn.Module,
    attack: ReconstructionAttack,
    known: Known,
    gradient: bool = False,
    truth: ArrayLike | None = None,
    gallery: ArrayLike | None = None,
    seed: int = 0,
    controls: int = 3,
) -> AttackResult:
    """Attack one update: a model before and after training, as tensors by name or files of them.

    Args:
        before: Parameters that training began with.
        after: Parameters that it ended with, or with `gradient`, a gradient of the mean loss at `before`.
        model: The architecture; its loss is taken to be the mean cross-entropy of its outputs, or of their `logits`.
            It is not changed.
        attack: How images are reconstructed, such as `InvertingGradients(steps=1000)`.
        known: Facts about the work behind the update that the adversary knows.
        gradient: Whether `after` is a gradient.
        truth: `(n, *input_shape)` true inputs in [0, 1], at most `num_images`. Only the scores read them.
        gallery: `(G, *input_shape)` inputs in [0, 1] that were not trained on, drawn like the true ones. From 1000 on,
            an identification says much. None of them may be a true one.
        seed: Seed of the attack's starts.
        controls: Simulated updates of a client that works as stated, on inputs of the gallery or on noise. The same
            attack on them, and on updates of clients that work otherwise, shows at which distance it works
            (`result.match`). 0 checks nothing and saves most of the time.

    Errors: `FolderError` for files that cannot be used. `TargetError` for an update from which nothing can be
    reconstructed, and for a truth or a gallery that does not fit `known`. All are raised before anything is optimised.

    >>> import torch
    >>> from fedmem.attacks.inverting_gradients import InvertingGradients
    >>> net, image = torch.nn.Linear(4, 3), torch.tensor([[0.1, 0.9, 0.4, 0.6]])
    >>> before = {name: value.detach().clone() for name, value in net.named_parameters()}
    >>> torch.nn.functional.cross_entropy(net(image), torch.tensor([2])).backward()
    >>> after = {name: before[name] - 0.5 * value.grad for name, value in net.named_parameters()}
    >>> known = Known(input_shape=(4,), num_classes=3, num_images=1, lr=0.5)
    >>> done = attack(before, after, model=net, attack=InvertingGradients(), known=known, truth=image.numpy())
    >>> done.found.labels.tolist(), done.scores[0].psnr > 40
    ([2], True)
    """
    from fedmem.apps.saved_models import fit_to_model, read_frozen
    from fedmem.attacks._targets import require_direction, validate_targets
    from fedmem.weights.files import read_params

    if known.batch_size is not None and known.batch_size > known.num_images:
        raise TargetError(f"batch_size {known.batch_size} is more than the {known.num_images} images of the update")
    true, others = (_images(name, value, known.input_shape) for name, value in (("truth", truth), ("gallery", gallery)))
    _check_gallery(true, others, known)
    if controls < 0:
        raise TargetError(f"controls must be at least 0, got {controls}")
    origin: dict[str, Any] = {}
    pair, states = [], []
    for name, source in (("before", before), ("after", after)):
        if isinstance(source, Path):
            origin[name] = (
                {"file": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
                if source.is_file()
                else {}
            )
            source = read_params(source)
        states.append(rename_arrays(source, names_in_model(model, source)))
        pair.append(fit_to_model(source, model, name))
    if reason := app_mismatch(model, states[0]):
        raise TargetError(f"before: {reason}")
    model = read_frozen(states[0], model)
    target = target_of(pair[0], pair[1], model, known, gradient=gradient).grant(attack.knows)
    (target,) = validate_targets([require_direction(target)])
    (reconstruction,) = reconstruct(attack, [target], [stream(seed, "attack")])
    reconstruction = replace(reconstruction, distance=clip_distance(reconstruction.distance))
    found_scores = scores(reconstruction.inputs, true, others, stream(seed, "attack gallery")) if len(true) else []
    worse = sum(score.margin <= 0 for score in found_scores)
    match = Match(distance=reconstruction.distance, is_refuted=bool(found_scores) and 2 * worse >= len(found_scores))
    if controls and np.isfinite(match.distance):
        match = _compare_with_controls(match, attack, target, pair, model, known, (others, seed, controls, gradient))
    return AttackResult(
        found=reconstruction,
        knows=target.knows,
        clients=known.clients,
        match=match,
        notes=(
            *evaluation_mode(model, known.mode),
            *(() if gradient else contradictions(states[0], states[1], model, known.mode)),
            *fewer_inputs(len(true), known.num_images),
        ),
        scores=found_scores,
        truth=true if len(true) else None,
        gallery_size=len(others),
        origin=origin | {"seed": seed},
    )


def _compare_with_controls(
    match: Match,
    attack: ReconstructionAttack,
    target: GradientTarget,
    pair: Sequence[Params],
    model: nn.Module,
    known: Known,
    options: tuple[Images, int, int, bool],
) -> Match:
    """The same attack on simulated updates with known data, and on the reversed update."""
    gallery, seed, controls, gradient = options
    before, after = pair

    def build(trained: Params, start: Params = before) -> GradientTarget:
        built = target_of(start, trained, model, known, gradient=gradient).grant(attack.knows)
        return replace(built, model=target.model)

    def data(i: int) -> tuple[Images, IntArray]:
        rng = stream(seed, "attack control", run=i)
        labels = rng.integers(0, known.num_classes, known.num_images) if known.labels is None else known.labels
        if len(gallery) >= known.num_images:
            inputs = gallery[rng.permutation(len(gallery))[: known.num_images]]
        else:
            inputs = rng.random((known.num_images, *known.input_shape), dtype=np.float32)
        return inputs, np.asarray(labels, dtype=np.int64)

    client = Client(
        lr=known.lr,
        steps=known.steps,
        batch_size=known.batch_size or known.num_images,
        clients=known.clients,
        gradient=gradient,
    )
    made = make_controls(build, before, client, data, controls)
    rngs = [stream(seed, "attack on control", run=i) for i in range(len(made))]
    swapped = reverse_update(target) if gradient else build(before, after)
    (reverse,) = reconstruct(attack, [swapped], [stream(seed, "attack")])
    return compare(replace(match, reverse=clip_distance(reverse.distance)), attack, made, rngs, gallery)


def _images(name: str, values: ArrayLike | None, shape: tuple[int, ...]) -> Images:
    images = np.zeros((0, *shape), dtype=np.float32) if values is None else np.asarray(values, dtype=np.float32)
    if values is not None and not images.size:
        raise TargetError(f"{name}: holds no inputs; leave it out, or give one at least")
    if images.shape[1:] != shape:
        raise TargetError(f"{name}: inputs have shape {images.shape[1:]}, the model's are {shape}")
    if images.size and not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise TargetError(
            f"{name}: inputs must lie in [0, 1]; give them before they are normalised, and mean and std apart"
        )
    return images


def _check_gallery(truth: Images, gallery: Images, known: Known) -> None:
    """Refuses more true inputs than shaped the update, and those that stand in the gallery as well."""
    if len(truth) > known.num_images:
        raise TargetError(
            f"truth: {len(truth)} inputs, but {known.num_images} shaped the update; give those that it was trained on, "
            "and others as the gallery"
        )
    # adding 0 makes -0 the same as 0
    places = {(image + 0).tobytes(): place for place, image in enumerate(gallery)}
    twice = [(j, places[key]) for j, image in enumerate(truth) if (key := (image + 0).tobytes()) in places]
    if twice:
        raise TargetError(
            f"gallery: holds {len(twice)} of the {len(truth)} true inputs (truth {twice[0][0]} is gallery "
            f"{twice[0][1]}). These could never be identified; give inputs that were not trained on"
        )
