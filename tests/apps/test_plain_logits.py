"""Models of `transformers` under `peft`, as `get_peft_model` returns them, in watchers and attacks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fedmem import Known, Watch, WatchLeakage, attack
from fedmem.apps.plain_logits import evaluation_copy, input_array, logits_of
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.cli.main import app
from fedmem.contracts.evidence import Transition
from fedmem.errors import TargetError
from tests.models.huggingface_helpers import SIZES, TARGETS

WORDS, LENGTH = 30, 8

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def adapted(kind: str, task: str = "SEQ_CLS", padding: int | None = 0) -> Any:
    """A tiny transformer with adapters that are not zero."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    made = transformers.AutoConfig.for_model(kind, vocab_size=WORDS, num_labels=3, initializer_range=0.5, **SIZES[kind])
    made.bos_token_id = made.eos_token_id = None
    made.pad_token_id = padding
    makers = {
        "SEQ_CLS": transformers.AutoModelForSequenceClassification,
        "CAUSAL_LM": transformers.AutoModelForCausalLM,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        base = makers[task].from_config(made)
        targets, is_conv = list(TARGETS[kind]), kind == "gpt2"
        lora = peft.LoraConfig(
            task_type=task, r=2, target_modules=targets, fan_in_fan_out=is_conv, init_lora_weights=False
        )
        return peft.get_peft_model(base, lora)


def tokens(count: int = 3, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(seed).integers(1, WORDS, (count, LENGTH))


def watched(model: nn.Module, inputs: Any, targets: Any, **options: Any) -> Any:
    """What `Watch` reads of the aggregate of an app that sends adapters as peft saves them."""
    import peft

    watch = Watch(model=model, examples={"mine": (inputs, targets)}, **options)
    arrays = peft.get_peft_model_state_dict(model)
    watch.begin(arrays)
    watch.see([Transition.at_server(run=0, round_number=0, before=arrays, after=arrays)])
    return watch.frame()


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_classifiers_of_texts_are_read_as_they_are(kind: str) -> None:
    model, labels = adapted(kind), [0, 1, 2]
    rows = tokens()
    with torch.no_grad():
        logits = copy.deepcopy(model).eval()(torch.from_numpy(rows)).logits
    expected = nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="none")
    assert watched(model, rows, labels).loss.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_causal_models_are_read_as_they_are() -> None:
    model, rows = adapted("gpt2", "CAUSAL_LM"), tokens()
    inputs, targets = rows[:, :-1], rows[:, 1:].copy()
    targets[0, 3:] = -1
    fresh = tokens(20, seed=1)
    frame = watched(model, inputs, targets, references={"mine": (fresh[:, :-1], fresh[:, 1:])})
    with torch.no_grad():
        logits = copy.deepcopy(model).eval()(torch.from_numpy(inputs)).logits.transpose(1, 2)
    each = nn.functional.cross_entropy(logits, torch.from_numpy(targets), ignore_index=-1, reduction="none")
    expected = each.sum(dim=1) / torch.tensor([3, 7, 7])
    assert frame.loss.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert frame.exposure.between(0, np.log2(21)).all()


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("style", ["mapping", "minus one"])
def test_padding_changes_no_logit(kind: str, style: str) -> None:
    model, rows = adapted(kind), tokens(2)
    short = rows[:, :5]
    mask = np.ones_like(rows)
    mask[:, 5:] = 0
    padded = np.where(mask == 1, rows, 0)
    inputs: Any = {"input_ids": padded, "attention_mask": mask} if style == "mapping" else np.where(mask, rows, -1)
    losses = watched(model, inputs, [0, 1]).loss.tolist()
    assert losses == pytest.approx(watched(model, short, [0, 1]).loss.tolist(), rel=1e-4)
    with torch.no_grad():
        unmasked = copy.deepcopy(model).eval()(torch.from_numpy(padded)).logits
    wrong = nn.functional.cross_entropy(unmasked, torch.tensor([0, 1]), reduction="none").tolist()
    assert kind == "gpt2" or losses != pytest.approx(wrong, rel=1e-4), "without the mask padding would count"


def test_padding_without_a_mask_is_refused() -> None:
    rows = tokens()
    rows[1, -2:] = 0
    with pytest.raises(ValueError, match=r"examples\['mine'\]: a row begins or ends with token 0.*attention_mask"):
        watched(adapted("bert"), rows, [0, 1, 2])
    everywhere = {"input_ids": rows, "attention_mask": np.ones_like(rows)}
    assert np.isfinite(watched(adapted("bert"), everywhere, [0, 1, 2]).loss).all()


REFUSED: list[tuple[str, Any, Any, str]] = [
    ("SEQ_CLS", tokens().astype(np.float32), [0, 1, 2], r"cannot read inputs of shape \(8,\), float32.*whole numbers"),
    ("SEQ_CLS", np.full((2, LENGTH), WORDS), [0, 1], r"whole numbers from 30 to 30.*token numbers of its vocabulary"),
    ("SEQ_CLS", tokens(), [0, 1, 3], "target 3 should be from 0 to 2$"),
    ("CAUSAL_LM", tokens(), [0, 1, 2], r"logits of shape .* for targets of shape .*next tokens \(n, l, V\)"),
    ("CAUSAL_LM", tokens(), tokens(), r"the targets are the tokens themselves.*tokens\[:, 1:\]"),
    ("CAUSAL_LM", tokens(), np.full((3, LENGTH), -100), "target -100 should be from 0 to 29, or -1 where nothing"),
    ("CAUSAL_LM", np.where(tokens() > 20, -1, tokens()), tokens(seed=1), "asked where there is no token"),
]


@pytest.mark.parametrize(("task", "inputs", "targets", "message"), REFUSED)
def test_what_cannot_be_read_is_one_sentence_before_round_1(task: str, inputs: Any, targets: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        watched(adapted("gpt2", task), inputs, targets)
    assert "\n" not in str(refused.value)


def test_decoders_without_padding_name_what_they_lack() -> None:
    with pytest.raises(ValueError, match=r"no padding token is defined.*pad_token_id"):
        watched(adapted("gpt2", padding=None), tokens(), [0, 1, 2])


def test_references_of_texts_need_their_targets() -> None:
    with pytest.raises(ValueError, match=r"references\['mine'\]: targets are next tokens.*give \(inputs, targets\)"):
        Watch(model=nn.Linear(2, 2), examples={"mine": (tokens(), tokens())}, references={"mine": tokens()})


class Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(rows.long()).logits
        return logits


def test_a_wrapper_is_refused_with_the_remedy() -> None:
    import peft

    model = adapted("bert")
    watch = Watch(model=Wrapper(model), examples={"mine": (tokens(), [0, 1, 2])})
    with pytest.raises(ValueError, match=r"a part of the model, 'inner'\. Give this part alone"):
        watch.begin(peft.get_peft_model_state_dict(model))


def test_inputs_are_read_by_declared_rules() -> None:
    assert input_array("x", np.zeros(2, np.int32)).dtype == np.int64
    assert input_array("x", [0.5]).dtype == np.float32
    with pytest.raises(ValueError, match="x: has pixels; give input_ids"):
        input_array("x", {"pixels": [1]})
    with pytest.raises(ValueError, match="token_type_ids is not read"):
        input_array("x", {"input_ids": [[1]], "token_type_ids": [[1]]})
    assert input_array("x", {"input_ids": [[1]], "token_type_ids": [[0]]}).tolist() == [[1]]
    with pytest.raises(ValueError, match="0 or 1 for each"):
        input_array("x", {"input_ids": [[1, 2]], "attention_mask": [[1]]})


def test_outputs_without_logits_are_named() -> None:
    with pytest.raises(TypeError, match="it returns tuple, expected a tensor of logits"):
        logits_of((torch.zeros(1),))
    model = nn.Linear(2, 3)
    assert not evaluation_copy(model).training
    assert model.training
    assert not model._forward_hooks, "the model that was given is not changed"


# --- attacks ----------------------------------------------------------------------------------------------------------


def vision() -> Any:
    """A tiny vision transformer of `transformers` with adapters and a trained head."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.ViTConfig(**sizes, image_size=4, patch_size=2, num_channels=1, num_labels=3)
    lora = peft.LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"], init_lora_weights=False
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return peft.get_peft_model(transformers.ViTForImageClassification(config), lora)


def step(model: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The adapters before and after a step of SGD."""
    import peft

    before = {name: value.clone() for name, value in peft.get_peft_model_state_dict(model).items()}
    trained = copy.deepcopy(model).eval()
    optimizer = torch.optim.SGD([value for value in trained.parameters() if value.requires_grad], lr=0.1)
    logits = trained(torch.full((1, 1, 4, 4), 0.3)).logits
    nn.functional.cross_entropy(logits, torch.tensor([1])).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return before, {name: value.clone() for name, value in peft.get_peft_model_state_dict(trained).items()}


KNOWN = Known(input_shape=(1, 4, 4), num_classes=3, num_images=1, lr=0.1, mode="eval")


def test_updates_of_transformers_for_images_are_attacked() -> None:
    model = vision()
    before, after = step(model)
    attacker = InvertingGradients(steps=2)
    done = attack(before, after, model=model, attack=attacker, known=KNOWN, controls=0)
    assert np.isfinite(done.found.distance)
    image = {"mine": np.full((1, 1, 4, 4), 0.3)}
    watcher = WatchLeakage(model=model, attack=attacker, known=KNOWN, examples=image, rounds=[1], levels=["global"])
    watcher.begin(before)
    watcher.see([Transition.at_server(run=0, round_number=1, before=before, after=after, sizes={0: 1})])
    assert np.isfinite(watcher.frame().distance).all()


def test_attacks_on_texts_are_refused_in_one_sentence() -> None:
    import peft

    model = adapted("bert")
    arrays = peft.get_peft_model_state_dict(model)
    known = Known(input_shape=(LENGTH,), num_classes=3, num_images=1, lr=0.1)
    with pytest.raises(TargetError, match=r"reads token numbers.*inside a scenario") as refused:
        attack(arrays, arrays, model=model, attack=InvertingGradients(), known=known)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("model", "shape", "code"), [pytest.param("vision", "1,4,4", 0, marks=pytest.mark.slow), ("adapted_bert", "8", 2)]
)
def test_the_command_takes_models_of_peft(model: str, shape: str, code: int, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    before, after = step(vision())
    for name, arrays in (("before", before), ("after", after)):
        save_file(arrays, tmp_path / f"{name}.safetensors")
    files = [str(tmp_path / f"{name}.safetensors") for name in ("before", "after")]
    options = ["--model", f"tests.apps.test_plain_logits:{model}", "--shape", shape, "--classes", "3", "--images", "1"]
    more = ["--lr", "0.1", "--mode", "eval", "--controls", "0", "attack.steps=2", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["attack", *files, *options, *more])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output


def adapted_bert() -> Any:
    return adapted("bert")
