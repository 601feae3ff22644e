"""Apps as users write them: BatchNorm in whole states, adapters of peft, and lists of arrays."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fedmem import Known, Observed, Watch, WatchLeakage
from fedmem.apps.array_names import names_in_model, rename_arrays
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.contracts.evidence import Transition
from fedmem.engines._flower import FIRST_NODE, LocalGrid, in_process

CLIENTS = 2

Read = Callable[[nn.Module], ArrayRecord]
Load = Callable[[nn.Module, ArrayRecord], None]


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def images(client: int, count: int = 4, size: int = 8, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(client)
    inputs = rng.random((count, channels, size, size), dtype=np.float32)
    return torch.from_numpy(inputs), torch.from_numpy(rng.integers(0, 3, count))


class App:
    """A Flower app whose clients train a network with plain torch; `trained` are their models, client by client."""

    def __init__(self, network: nn.Module, read: Read, load: Load, data: Any = images) -> None:
        self.network, self.read, self.load, self.data = network, read, load, data
        self.models: dict[int, nn.Module] = {}
        self.app = ClientApp()
        self.app.train()(self.train)

    @property
    def trained(self) -> list[nn.Module]:
        return [self.models[client] for client in sorted(self.models)]

    def train(self, msg: Message, context: Context) -> Message:
        model = copy.deepcopy(self.network).train()
        arrays = msg.content["arrays"]
        assert isinstance(arrays, ArrayRecord)
        self.load(model, arrays)
        inputs, targets = self.data(int(context.node_config["partition-id"]))
        optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.05)
        torch.manual_seed(0)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        self.models[int(context.node_config["partition-id"])] = model
        metrics = MetricRecord({"num-examples": len(targets)})
        return Message(RecordDict({"arrays": self.read(model), "metrics": metrics}), reply_to=msg)

    def run(self, watcher: Any, rounds: int = 1) -> Any:
        def exchange(messages: list[Message]) -> list[Message]:
            return [self.app(message, self.context(message)) for message in messages]

        return Observed(FedAvg(fraction_evaluate=0.0), watcher).start(
            grid=LocalGrid(CLIENTS, exchange), initial_arrays=self.read(self.network), num_rounds=rounds
        )

    @staticmethod
    def context(message: Message) -> Context:
        node = message.metadata.dst_node_id
        config: Any = {"partition-id": node - FIRST_NODE, "num-partitions": CLIENTS}
        return Context(run_id=1, node_id=node, node_config=config, state=RecordDict(), run_config={})


def read_state(model: nn.Module) -> ArrayRecord:
    return ArrayRecord(model.state_dict())


def load_state(model: nn.Module, arrays: ArrayRecord) -> None:
    model.load_state_dict(arrays.to_torch_state_dict())


def read_list(model: nn.Module) -> ArrayRecord:
    return ArrayRecord([value.numpy() for value in model.state_dict().values()])


def load_list(model: nn.Module, arrays: ArrayRecord) -> None:
    pairs = zip(model.state_dict(), arrays.to_numpy_ndarrays(), strict=True)
    model.load_state_dict(OrderedDict({name: torch.as_tensor(np.array(value)) for name, value in pairs}))


def read_parameters(model: nn.Module) -> ArrayRecord:
    return ArrayRecord(OrderedDict({name: value.detach() for name, value in model.named_parameters()}))


def load_parameters(model: nn.Module, arrays: ArrayRecord) -> None:
    model.load_state_dict(arrays.to_torch_state_dict(), strict=False)


def small_net(dropout: float = 0.5) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 3)
    )


def losses(model: nn.Module, client: int = 0, data: Any = images) -> list[float]:
    """The losses of the examples of a client, with the model in evaluation mode."""
    inputs, targets = data(client)
    with torch.no_grad():
        return nn.functional.cross_entropy(copy.deepcopy(model).eval()(inputs), targets, reduction="none").tolist()


def watched_losses(app: App, model: nn.Module, data: Any = images) -> list[list[float]]:
    """What `Watch` reads at the clients of round 1."""
    watch = Watch(model=model, examples={"mine": data(0)})
    app.run(watch)
    frame = watch.frame()
    assert np.isfinite(frame.loss).all()
    local = frame[(frame["round"] == 1) & (frame.level == "local")]
    return [part.sort_values("subject").loss.tolist() for _, part in local.groupby("client")]


@pytest.mark.parametrize(("read", "load"), [(read_state, load_state), (read_list, load_list)])
def test_whole_states_with_batch_norm_are_read_as_the_app_would(read: Read, load: Load) -> None:
    app = App(small_net(), read, load)
    fresh = small_net()
    seen = watched_losses(app, fresh)
    assert len(seen) == CLIENTS
    for values, model in zip(seen, app.trained, strict=True):
        assert values == pytest.approx(losses(model), rel=1e-5)
    assert fresh.training, "the model that was given is as it was"
    assert not any(value.any() for name, value in fresh.state_dict().items() if name.endswith("mean"))
    # with the statistics of the model that was given, the losses would be others
    for values, model in zip(seen, app.trained, strict=True):
        wrong = copy.deepcopy(model)
        wrong.load_state_dict({n: v for n, v in fresh.state_dict().items() if "running" in n}, strict=False)
        assert values != pytest.approx(losses(wrong), rel=1e-3)


@pytest.mark.slow
def test_a_resnet18_of_torchvision_runs_under_watch() -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=3)
    app = App(network, read_state, load_state)
    seen = watched_losses(app, torchvision.models.resnet18(num_classes=3))
    for values, model in zip(seen, app.trained, strict=True):
        assert values == pytest.approx(losses(model), rel=1e-4)


def test_parameters_alone_are_refused_before_round_1() -> None:
    app = App(small_net(), read_parameters, load_parameters)
    with pytest.raises(ValueError, match=r"lack the running statistics.*'1\.running_mean'.*state_dict\(\)"):
        app.run(Watch(model=small_net(), examples={"mine": images(0)}))
    assert not app.trained


def test_constant_statistics_may_be_those_of_the_model() -> None:
    network: Any = small_net(dropout=0.0)
    with torch.no_grad():
        dict(network.named_buffers())["1.running_mean"].fill_(0.2)
    watch = Watch(model=network.eval(), examples={"mine": images(0)})
    arrays = {name: value.detach() for name, value in network.named_parameters()}
    watch.begin(arrays)
    watch.see([Transition.at_server(run=0, round_number=0, before=arrays, after=arrays)])
    assert watch.frame().loss.tolist() == pytest.approx(losses(network), rel=1e-5)


# --- adapters ---------------------------------------------------------------------------------------------------------


def texts(client: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(client)
    return torch.from_numpy(rng.random((4, 6), dtype=np.float32)), torch.from_numpy(rng.integers(0, 3, 4))


def adapter(head: bool = False) -> nn.Module:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = nn.Sequential(OrderedDict(body=nn.Linear(6, 8), act=nn.ReLU(), head=nn.Linear(8, 3)))
    config = peft.LoraConfig(target_modules=["body"], r=2, lora_dropout=0.1, modules_to_save=["head"] if head else None)
    model: nn.Module = peft.get_peft_model(base, config)
    return model


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_an_app_of_peft_runs_under_watch(whole: bool, head: bool) -> None:
    peft = pytest.importorskip("peft")

    def read(model: nn.Module) -> ArrayRecord:
        return ArrayRecord(OrderedDict(peft.get_peft_model_state_dict(model)))

    def load(model: nn.Module, arrays: ArrayRecord) -> None:
        peft.set_peft_model_state_dict(model, arrays.to_torch_state_dict())

    app = App(adapter(head), *((read_state, load_state) if whole else (read, load)), data=texts)
    seen = watched_losses(app, adapter(head), data=texts)
    for values, model in zip(seen, app.trained, strict=True):
        assert values == pytest.approx(losses(model, data=texts), rel=1e-5)
    assert seen[0] != seen[1]


@pytest.mark.filterwarnings("ignore:Adapter name 'lora'")
@pytest.mark.parametrize("name", ["default", "lora", "body", "modules_to"])
def test_an_adapter_may_have_the_name_of_a_part(name: str) -> None:
    peft = pytest.importorskip("peft")
    base = nn.Sequential(OrderedDict(body=nn.Linear(6, 8), head=nn.Linear(8, 3)))
    model = peft.get_peft_model(
        base, peft.LoraConfig(target_modules=["body"], r=2, modules_to_save=["head"]), adapter_name=name
    )
    trained = {key for key, value in model.named_parameters() if value.requires_grad}
    saved = peft.get_peft_model_state_dict(model, adapter_name=name)
    assert set(names_in_model(model, saved).values()) == trained
    assert len(saved) == len(trained) == 4


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_random_gpt2_with_lora_has_its_names() -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    sizes = {"n_layer": 1, "n_head": 1, "n_embd": 8, "vocab_size": 11, "n_positions": 6}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
    model = peft.get_peft_model(
        transformers.GPT2LMHeadModel(config), peft.LoraConfig(target_modules=["c_attn"], r=2, fan_in_fan_out=True)
    )
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert set(names_in_model(model, peft.get_peft_model_state_dict(model)).values()) == trained
    state = model.state_dict()
    names = names_in_model(model, state)
    assert trained <= set(names.values()) <= {name for name, _ in model.named_parameters()}, "tied weights count once"
    renamed = rename_arrays(state, names)
    assert all(torch.equal(renamed[name], value) for name, value in model.named_parameters())


# --- attacks ----------------------------------------------------------------------------------------------------------


def leakage(model: nn.Module, mode: Any = "train", shape: tuple[int, ...] = (3, 8, 8)) -> WatchLeakage:
    known = Known(input_shape=shape, num_classes=3, num_images=1, lr=0.05, mode=mode)
    data = images if shape == (3, 8, 8) else texts
    return WatchLeakage(
        model=model,
        attack=InvertingGradients(steps=2),
        known=known,
        examples={"mine": data(0)[0].numpy()[:1]},
        rounds=[1],
        levels=["local"],
    )


def test_attacks_read_batch_norm_in_evaluation_mode_and_say_so() -> None:
    app = App(small_net(dropout=0.0), read_state, load_state)
    watcher = leakage(small_net(dropout=0.0))
    app.run(watcher)
    frame = watcher.frame()
    assert len(frame) == CLIENTS
    assert frame.knows.str.contains("statistics").all()
    assert np.isfinite(frame.distance).all()


def test_updates_of_adapters_alone_are_attacked() -> None:
    peft = pytest.importorskip("peft")

    def read(model: nn.Module) -> ArrayRecord:
        return ArrayRecord(OrderedDict(peft.get_peft_model_state_dict(model)))

    def load(model: nn.Module, arrays: ArrayRecord) -> None:
        peft.set_peft_model_state_dict(model, arrays.to_torch_state_dict())

    watcher = leakage(adapter(head=True), "eval", (6,))
    App(adapter(head=True), read, load, data=texts).run(watcher)
    assert np.isfinite(watcher.frame().distance).all()
    assert not watcher.frame().knows.str.contains("statistics").any()
