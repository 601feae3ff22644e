"""FedJAX: its federated averaging, compiled, on the batches of the plan; networks are written as in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fedjax
import jax
import jax.numpy as jnp
import numpy as np
from fedjax.algorithms import fed_avg

from benchmarks.contender import Clock, Setting, Trained, main
from benchmarks.plan import Plan


def _dense(params: Any, name: str, inputs: Any) -> Any:
    return inputs @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def _perceptron(params: Any, inputs: Any) -> Any:
    return _dense(params, "output", jax.nn.relu(_dense(params, "hidden1", inputs.reshape(len(inputs), -1))))


def _convolutions(params: Any, inputs: Any) -> Any:
    outputs = inputs
    for name in ("conv1", "conv2"):
        outputs = jax.lax.conv(outputs, params[f"{name}.weight"], (1, 1), "VALID")
        outputs = jax.nn.relu(outputs + params[f"{name}.bias"][:, None, None])
    pooled = jax.lax.reduce_window(outputs, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return _perceptron(params, pooled)


def _characters(params: Any, inputs: Any) -> Any:
    embedded = params["embedding.weight"][inputs.astype(jnp.int32)]
    drive = (
        embedded @ params["recurrent.weight_ih_l0"].T + params["recurrent.bias_ih_l0"] + params["recurrent.bias_hh_l0"]
    )

    def step(carried: Any, now: Any) -> Any:
        hidden, cell = carried
        gates = now + hidden @ params["recurrent.weight_hh_l0"].T
        enter, forget, candidate, leave = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
        hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
        return (hidden, cell), hidden

    nothing = jnp.zeros((len(inputs), params["recurrent.weight_hh_l0"].shape[1]))
    _, states = jax.lax.scan(step, (nothing, nothing), drive.swapaxes(0, 1))
    return _dense(params, "output", states.swapaxes(0, 1))


NETWORKS: dict[str, Callable[[Any, Any], Any]] = {"mlp": _perceptron, "cnn": _convolutions, "lm": _characters}


class _Planned:
    """A client's data set, of which federated averaging asks its length and its batches."""

    def __init__(self, plan: Plan, round_number: int, place: int) -> None:
        self._plan = plan
        self._batches = plan.batches_of(0, round_number, place)

    def __len__(self) -> int:
        return sum(len(batch) for batch in self._batches)

    def shuffle_repeat_batch(self, hparams: Any) -> list[dict[str, Any]]:
        """The batches of the plan."""
        return [{"x": self._plan.inputs[rows], "y": self._plan.targets[rows]} for rows in self._batches]


def train(plan: Plan, setting: Setting) -> Trained:
    """The algorithm of its examples; compiling falls into the rounds that do not count."""
    network = NETWORKS[plan.network["kind"]]

    def loss(params: Any, batch: Any, rng: Any) -> Any:
        logs = jax.nn.log_softmax(network(params, batch["x"]))
        return -jnp.take_along_axis(logs, batch["y"][..., None], axis=-1).mean()

    algorithm = fed_avg.federated_averaging(
        jax.grad(loss),
        fedjax.optimizers.sgd(plan.lr),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=plan.batches.shape[4]),
    )
    state = algorithm.init({name: jnp.asarray(value) for name, value in plan.initial.items()})
    keys = jax.random.split(jax.random.PRNGKey(0), plan.cohorts.shape[2])
    clock = Clock()
    for round_number in range(setting.rounds):
        clients = [
            (int(client), _Planned(plan, round_number, place), keys[place])
            for place, client in enumerate(plan.cohorts[0, round_number])
        ]
        state, _ = algorithm.apply(state, clients)
        jax.block_until_ready(state.params)
        clock.round()
    return Trained(params={name: np.asarray(value) for name, value in state.params.items()}, value=clock.seconds())


if __name__ == "__main__":
    main(train)
