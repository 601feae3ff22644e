"""Wrong scenarios: exit code 2, a message with the line and the remedy, no traceback, no files."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedmem.cli.main import app

GOOD = """\
# A scenario in which everything fits.
name: good
seed: 0
runs: 8
rounds: 4
clients: 4
dataset: {kind: digits}
partition: {kind: dirichlet, alpha: 1.0}
model: {kind: mlp, hidden: [8]}
injections:
  - {kind: random_pattern, per_client: 2}
  - {kind: mislabelled, per_client: 2}
sampler: {kind: uniform, size: 2}
client: {kind: sgd, lr: 0.1, epochs: 1, batch_size: 10}
strategy: {kind: fedavg}
observe: {every: 2, levels: [local, global]}
probes:
  - {kind: utility}
  - {kind: leakage, attack: {kind: inverting_gradients}}
estimators:
  - {kind: memorisation}
  - {kind: exposure}
  - {kind: membership, attack: {kind: lira}}
"""

# What is replaced, by what, the path that is blamed, and what the message says; the line is that of the replacement.
EDITS = [
    ("partition: {kind: dirichlet", "partition: {kind: dirichelt", "partition.kind", "did you mean 'dirichlet'?"),
    ("alpha: 1.0", "alpha: 0", "partition.alpha", "greater than 0, got 0"),
    ("alpha: 1.0", "alhpa: 1.0", "partition.alhpa", "did you mean 'alpha'?"),
    ("alpha: 1.0", "alpha: '1.0'", "partition.alpha", "should be a number, got '1.0'"),
    ("dirichlet, alpha: 1.0", "shards, per_client: 0", "partition.per_client", "greater than or equal to 1"),
    ("dirichlet, alpha: 1.0", "pathological, classes: 11", "partition.classes", "the rows have 10; use at most 10"),
    ("dirichlet, alpha: 1.0", "pathological", "partition", "raise classes to at least 3, or clients to at least 5"),
    ("dirichlet, alpha: 1.0", "quantity_skew, law: pareto", "partition.law", "should be 'dirichlet' or 'power'"),
    ("dirichlet, alpha: 1.0", "inner_dirichlet, min_rows: 500", "partition", "lower clients or min_rows"),
    (
        "{kind: dirichlet, alpha: 1.0}",
        "{kind: feature_skew, base: {kind: dirichelt}}",
        "partition.base.kind",
        "did you mean 'dirichlet'?",
    ),
    (
        "{kind: dirichlet, alpha: 1.0}",
        "{kind: feature_skew, base: {kind: pathological, classes: 12}}",
        "partition.base.classes",
        "use at most 10",
    ),
    ("dirichlet, alpha: 1.0", "feature_skew, strength: 2.0", "partition.strength", "less than or equal to 1"),
    ("dirichlet, alpha: 1.0", "flower, partitioner: IidPartitoner", "partition.partitioner", "'IidPartitioner'"),
    (
        "{kind: dirichlet, alpha: 1.0}",
        "{kind: flower, partitioner: DirichletPartitioner, arguments: {alpha: 1.0, seed: 3}}",
        "partition.arguments.seed",
        "comes from `seed` of the scenario",
    ),
    (
        "{kind: dirichlet, alpha: 1.0}",
        "{kind: flower, partitioner: ShardPartitioner, arguments: {num_shards_per_partition: 2, shard_size: 20}}",
        "partition",
        "or write `leave_out: true`",
    ),
    ("mlp, hidden: [8]", "tabular_mlp", "model.kind", "these data are no table"),
    ("mlp, hidden: [8]", "resnet8, width: 6", "model", "use one of 1, 2, 3, 6"),
    ("seed: 0", "initial_weights: per_rn", "initial_weights", "did you mean 'per_run'?"),
    ("rounds: 4", "round: 4", "round", "did you mean 'rounds'?"),
    ("rounds: 4", "rounds: 0", "rounds", "greater than or equal to 1"),
    ("rounds: 4", "rounds: 4.5", "rounds", "whole number"),
    ("rounds: 4", "rounds: yes", "rounds", "whole number"),
    ("rounds: 4", "rounds:", "rounds", "whole number, got None"),
    ("clients: 4", "clients: -4", "clients", "greater than or equal to 1"),
    ("runs: 8", "runs: 9", "runs", "use 10"),
    ("seed: 0", "seed: -1", "seed", "greater than or equal to 0"),
    ("seed: 0", "runs: 8", "runs", "given twice"),
    ("name: good", "name: ../good", "name", "letters, digits"),
    ("name: good", "name: ..", "name", "letters, digits"),
    ("name: good", "name: 7", "name", "should be text"),
    ("dataset: {kind: digits}", "dataset: digits", "dataset", "{kind: digits}"),
    ("dataset: {kind: digits}", "dataset: {}", "dataset.kind", "choose from: "),
    ("dataset: {kind: digits}", "dataset: {kind: nowhere.at_all:Data}", "dataset.kind", "No module named 'nowhere'"),
    ("dataset: {kind: digits}", "dataset: !!python/name:os.system {}", "", "tag"),
    ("hidden: [8]", "hidden: 8", "model.hidden", "list"),
    ("hidden: [8]", "hidden: [8, 0]", "model.hidden[1]", "greater than or equal to 1"),
    ("size: 2", "size: 5", "sampler.size", "at most 4"),
    ("lr: 0.1", "lr: .nan", "client.lr", "finite"),
    ("lr: 0.1", "lr: fast", "client.lr", "should be a number, got 'fast'"),
    (
        "strategy: {kind: fedavg}",
        "strategy: {kind: fedavg, weighting: sizes}",
        "strategy.weighting",
        "did you mean 'size'?",
    ),
    (
        "strategy: {kind: fedavg}",
        "strategy: {kind: 'flwr.serverapp.strategy:FedProx', mu: 1}",
        "strategy.mu",
        "proximal_mu",
    ),
    ("strategy: {kind: fedavg}", "strategy: {kind: 'flwr.serverapp.strategy:FedAgv'}", "strategy.kind", "'FedAvg'"),
    ("every: 2", "every: 5", "observe.every", "at most 4"),
    ("every: 2", "rounds: [1, 5]", "observe.rounds[1]", "use 0 to 4"),
    ("every: 2", "rounds: [-1, -6]", "observe.rounds[1]", "-1 (the last) down to -5"),
    ("levels: [local, global]", "levels: [lokal]", "observe.levels[0]", "did you mean 'local'?"),
    ("levels: [local, global]", "levels: []", "observe.levels", "at least 1"),
    ("levels: [local, global]", "levels: [local, sum]", "observe.levels[1]", "sums: [2, 5]"),
    ("levels: [local, global]", "levels: [local, global], sums: [2]", "observe.sums", "add sum to observe.levels"),
    ("levels: [local, global]", "levels: [local, sum], sums: [2]", "observe.levels[1]", "read by probes alone"),
    ("levels: [local, global]", "levels: [local, sum], sums: [2, 2]", "observe.sums", "twice"),
    ("levels: [local, global]", "levels: [local, sum], sums: [2, 3]", "observe.sums[1]", "the largest has 2"),
    ("levels: [local, global]", "levels: [local, sum], sums: [1]", "observe.sums[0]", "greater than or equal to 2"),
    ("levels: [local, global]", "levels: [local, local]", "observe.levels", "twice"),
    ("- {kind: utility}", "- {kind: utility, levels: [sum]}", "probes[0].levels", "add it to observe.levels"),
    ("- {kind: utility}", "- {kind: utility, every: 9}", "probes[0].every", "at most 4"),
    (
        "{kind: inverting_gradients}}",
        "{kind: lira}}",
        "probes[1].attack.kind",
        "is no reconstruction attack, for it has no ",
    ),
    ("{kind: inverting_gradients}}", "{kind: inverting_gradients}, rounds: [3]}", "probes[1].rounds", "observe.rounds"),
    ("{kind: lira}}", "{kind: inverting_gradients}}", "estimators[2].attack.kind", "lira, loss_threshold"),
    (", attack: {kind: lira}}", "}", "estimators[2].attack", "is missing"),
    ("- {kind: exposure}", "- {kind: memorisation}", "estimators[1]", "the same as estimators[0]"),
    ("{kind: mislabelled, per_client: 2}", "{kind: random_pattern, copies: 2}", "injections[1]", "label"),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: mislabelled, copies: 2, unmasked: 1}",
        "injections[1].unmasked",
        "write unmasked: 0, or leave the probe out",
    ),
    ("{kind: mislabelled, per_client: 2}", "{kind: mislabelled, per_client: 2.5}", "injections[1].per_client", "whole"),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: typical, clients: [0, 4]}",
        "injections[1].clients[1]",
        "client 4 does not exist, there are 4; use 0 to 3",
    ),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: typical, clients: [1, 1]}",
        "injections[1].clients",
        "names a client twice",
    ),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: typical, clients: []}",
        "injections[1].clients",
        "write all, a list of clients",
    ),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: typical, clients: {share: 0}}",
        "injections[1].clients",
        "share 0 should lie above 0",
    ),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: typical, clients: {count: 5}}",
        "injections[1].clients.count",
        "use at most 4, or all",
    ),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: typical, clients: {share: 0.5, count: 2}}",
        "injections[1].clients",
        "exactly one key",
    ),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: typical, clients: half}",
        "injections[1].clients",
        "should be 'all' or should be a list",
    ),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: typical, copies: 0}",
        "injections[1].copies",
        "greater than or equal to 1",
    ),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: typical, start: 3, stop: 2}",
        "injections[1].stop",
        "write at least 3, or leave it out",
    ),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: typical, start: 5}",
        "injections[1].start",
        "use at most 4, or raise rounds",
    ),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: typical, start: 0}",
        "injections[1].start",
        "greater than or equal to 1",
    ),
    ("{kind: mislabelled, per_client: 2}", "{kind: random_row}", "injections[1]", "use random_pattern"),
    ("{kind: mislabelled, per_client: 2}", "{kind: blended_patch, size: 0.3}", "injections[1].size", "Raise size"),
    ("{kind: mislabelled, per_client: 2}", "{kind: unique_feature, size: 1.5}", "injections[1].size", "less than 1"),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: corrupted, damage: blurr}",
        "injections[1].damage",
        "did you mean 'blur'?",
    ),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: near_duplicate, multiplicity: 1}",
        "injections[1].multiplicity",
        "greater than or equal to 2",
    ),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: rare_subgroup, of_class: 12}",
        "injections[1].of_class",
        "there is no class 12; use 0 to 9",
    ),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: rare_subgroup, per_client: 500}",
        "injections[1]",
        "500 rows of class 0 are wanted",
    ),
    ("{kind: mislabelled, per_client: 2}", "{kind: label_noise, rate: 1.0}", "injections[1].rate", "less than 1"),
    (
        "{kind: mislabelled, per_client: 2}",
        "{kind: adversarial, epsilon: 0}",
        "injections[1].epsilon",
        "greater than 0",
    ),
    ("{kind: mislabelled, per_client: 2}", "{kind: poison, victim: 1}", "injections[1].target", "is the victim itself"),
    ("strategy: {kind: fedavg}", "population: 5000", "population", "rows"),
    ("strategy: {kind: fedavg}", "bootstrap: 2", "bootstrap", "greater than or equal to 20"),
    ("strategy: {kind: fedavg}", "tolerate: {max_failed_share: 1}", "tolerate.max_failed_share", "less than 1"),
    ("strategy: {kind: fedavg}", "speed: {executer: auto}", "speed.executer", "did you mean 'executor'?"),
    ("kind: uniform, size: 2", "kind: cyclic, size: 5", "sampler.size", "at most 4"),
    ("kind: uniform, size: 2", "kind: cyclic, size: 0", "sampler.size", "greater than or equal to 1"),
    ("kind: uniform, size: 2", "kind: by_size, size: 7", "sampler.size", "at most 4"),
    ("kind: uniform, size: 2", "kind: min_separation, size: 2, separation: 3", "sampler.separation", "at most 2"),
    ("kind: uniform, size: 2", "kind: min_separation, size: 3", "sampler", "6 different clients"),
    ("kind: uniform, size: 2", "kind: atypical, size: 2, beta: -1.0", "sampler.beta", "greater than or equal to 0"),
    ("kind: uniform, size: 2", "kind: 'tests.toys:Loudest'", "sampler", "use roster: per_run"),
    ("lr: 0.1", "lr: 0.1, clip: 0", "client.clip", "greater than 0"),
    ("lr: 0.1", "lr: 0.1, decay: 1.5", "client.decay", "less than or equal to 1"),
    ("{kind: fedavg}", "{kind: fedprox, mu: -1}", "strategy.mu", "greater than or equal to 0"),
    ("{kind: fedavg}", "{kind: fedavgm, momentum: 1.0}", "strategy.momentum", "less than 1"),
    ("{kind: fedavg}", "{kind: trimmed_mean, beta: 0.5}", "strategy.beta", "less than 0.5"),
    ("{kind: fedavg}", "{kind: krum}", "strategy", "needs cohorts of at least 3, but they are of 2"),
    ("{kind: fedavg}", "{kind: krum, f: 1}", "strategy", "or lower strategy.f"),
    ("{kind: fedavg}", "{kind: multikrum, keep: 0}", "strategy.keep", "greater than or equal to 1"),
    ("rounds: 4", "rounds: 99999999999999999999", "rounds", "less than or equal to 1000000"),
    ("runs: 8", "runs: 1000000", "runs", "less than or equal to 100000"),
    ("clients: 4", "clients: 99999999999999999999", "clients", "less than or equal to 10000000"),
    ("strategy: {kind: fedavg}", "references: 1000000000", "references", "less than or equal to 10000000"),
    ("strategy: {kind: fedavg}", "bootstrap: 1000000000", "bootstrap", "less than or equal to 1000000"),
    ("strategy: {kind: fedavg}", "population: 99999999999999999999", "population", "less than or equal to 100000000"),
    ("strategy: {kind: fedavg}", "speed: {threads: 100000}", "speed.threads", "less than or equal to 1024"),
    ("strategy: {kind: fedavg}", "speed: {engine: flower, executor: stacked}", "speed.executor", "one_by_one or auto"),
    ("strategy: {kind: fedavg}", "speed: {engine: flower, server: rule}", "speed.server", "messages or auto"),
    ("strategy: {kind: fedavg}", "speed: {engine: flower, device: cuda}", "speed.device", "use device: cpu"),
    ("strategy: {kind: fedavg}", "speed: {engine: flower, device: mps}", "speed.device", "use device: cpu"),
    ("strategy: {kind: fedavg}", "speed: {precision: tf32}", "speed.precision", "use device: cuda"),
    ("strategy: {kind: fedavg}", "speed: {precision: bf16, device: mps}", "speed.precision", "use precision: fp32"),
    ("strategy: {kind: fedavg}", "speed: {precision: fp16}", "speed.precision", "'bf16'"),
    ("strategy: {kind: fedavg}", "speed: {address: '10.0.0.1:6379'}", "speed.address", "use engine: flower"),
    (
        "strategy: {kind: fedavg}",
        "speed: {engine: flower, address: '10.0.0.1:6379', workers: 3}",
        "speed.workers",
        "Use workers: auto",
    ),
    ("every: 2", "every: 99999999999999999999", "observe.every", "less than or equal to 1000000"),
    ("every: 2", "rounds: [99999999999999999999]", "observe.rounds[0]", "less than or equal to"),
    ("size: 2", "size: 99999999999999999999", "sampler.size", "less than or equal to 100000000"),
    ("batch_size: 10", "batch_size: 99999999999999999999", "client.batch_size", "less than or equal to 100000000"),
    ("epochs: 1", "steps: 99999999999999999999", "client.steps", "less than or equal to 100000000"),
    (
        "kind: digits}",
        "kind: synthetic, rows: 99999999999999999999}",
        "dataset.rows",
        "less than or equal to 100000000",
    ),
    ("hidden: [8]", "hidden: [9999999999999]", "model.hidden[0]", "less than or equal to 100000000"),
    ("{kind: random_pattern, per_client: 2}", "{kind: typical, copies: 1000000000}", "injections[0].copies", "less"),
    ("clients: 4", "clients: 1301", "clients", "lower clients to at most 185"),
    ("strategy: {kind: fedavg}", "strategy: {kind: 'flwr.serverapp.strategy:Strategy'}", "strategy.kind", "abstract"),
    ("strategy: {kind: fedavg}", "strategy: {kind: 'fractions:Fraction'}", "strategy.kind", "it has no start"),
    ("dataset: {kind: digits}", "dataset: {kind: 'this:Data'}", "dataset.kind", "it defines none"),
    ("- {kind: utility}", "- {kind: utility, levels: []}", "probes[0].levels", "look at nothing"),
    ("levels: [local, global]", "levels: []", "observe.levels", "should have at least 1 entry"),
    ("name: good", '"a key": 1', "'a key'", "unknown key"),
    ("name: good", "a.b: 1", "'a.b'", "unknown key"),
    ("name: good", "über: 1", "'über'", "unknown key"),
    ("name: good", "0: 1", "0", "unknown key"),
    ("name: good", '"\\e[31mred": 1', r"'\x1b[31mred'", "unknown key"),
    ("client: {kind: sgd,", "client: {kind: sgd, a b: 1,", "client.'a b'", "unknown key"),
    ("name: good", 'name: "\\ud800"', "", "half a character"),
    ("name: good", 'name: "\\UFFFFFFFF"', "", "beyond Unicode"),
    ("strategy: {kind: fedavg}", "exclusion: delete", "exclusion", "should be 'replace' or 'remove', got 'delete'"),
    ("{kind: lira}}", "{kind: rmia, gamma: 0.5}}", "estimators[2].attack.gamma", "greater than or equal to 1"),
    ("{kind: lira}}", "{kind: rmia, mode: of-line}}", "estimators[2].attack.mode", "did you mean 'offline'?"),
    ("- {kind: memorisation}", "- {kind: cross_influence, rate: 1}", "estimators[0].rate", "less than 1"),
    ("- {kind: memorisation}", "- {kind: client_influence}", "estimators[0]", "add leave_out: {clients: all}"),
    ("strategy: {kind: fedavg}", "leave_out: {clients: 5}", "leave_out.clients", "use at most 4"),
    ("strategy: {kind: fedavg}", "leave_out: {clients: [0, 4]}", "leave_out.clients[1]", "use 0 to 3"),
    ("strategy: {kind: fedavg}", "leave_out: {clients: [2, 2]}", "leave_out.clients[1]", "named twice"),
    ("strategy: {kind: fedavg}", "leave_out: {clients: some}", "leave_out.clients", "should be 'all'"),
]

# A whole text, the line that is blamed (None: the file), and what the message says.
TEXTS = [
    ("", None, "the file is empty; `fedmem new NAME` writes"),
    ("- a\n- b\n", 1, "mapping of keys"),
    ("~\n", 1, "got nothing"),
    ("rounds: [4\nclients: 4\n", 1, "not valid YAML"),
    ("rounds: 4\n\tclients: 4\n", 2, "not valid YAML"),
    ("base: &x {kind: mlp}\nmodel: *x\n", 2, "write the value out"),
    (GOOD + "---\n" + GOOD, GOOD.count("\n") + 1, "second document"),
    (GOOD.replace("rounds: 4\n", ""), None, "rounds: is missing"),
    (GOOD.replace("runs: 8", "runs: 6"), 23, "lira compares runs with and without an example and needs at least 8"),
    (
        GOOD.replace("runs: 8", "runs: 1"),
        21,
        "memorisation compares runs with and without an example and needs at least 2",
    ),
    (GOOD.replace("random_pattern", "typical"), 22, "add {kind: random_pattern} to injections"),
    (GOOD.replace("clients: 4", "clients: 40").replace("dirichlet, alpha: 1.0", "natural"), 6, "clients: 14"),
    (GOOD + "roster: per_run\n" + "observe: {levels: [local]}\n", 25, "given twice"),
    (GOOD.replace("[local, global]", "[local]") + "roster: per_run\n", 24, "Add global to observe.levels"),
    (
        GOOD.replace("mislabelled, per_client: 2", "mislabelled, per_client: 2000"),
        10,
        "lower per_client, copies or rate",
    ),
    (
        GOOD.replace("mislabelled, per_client: 2", "label_noise, rate: 0.6"),
        10,
        "until audit and replacement rows need at most",
    ),
    (GOOD + "cohort_by: strategy\nspeed: {server: rule}\n", 25, "server: messages"),
    (
        GOOD.replace("kind: sgd", "kind: 'tests.toys:Deaf'")
        .replace(", epochs: 1, batch_size: 10", "")
        .replace("kind: fedavg", "kind: fedprox"),
        14,
        "use client: {kind: sgd}",
    ),
    (
        GOOD.replace("uniform, size: 2", "everyone").replace("kind: fedavg", "kind: krum, f: 1"),
        15,
        "needs cohorts of at least 5, but they are of 4; raise clients",
    ),
    (
        GOOD.replace("uniform, size: 2", "uniform, size: 4").replace("kind: fedavg", "kind: multikrum, keep: 5"),
        15,
        "needs cohorts of at least 5, but they are of 4; raise sampler.size",
    ),
    (
        GOOD.replace("uniform, size: 2", "atypical, size: 2").replace("kind: mislabelled", "kind: typical"),
        13,
        "no injection makes any; add one, such as {kind: mislabelled}",
    ),
    (
        GOOD.replace("kind: fedavg", "kind: 'flwr.serverapp.strategy:FedAvg'") + "speed: {server: rule}\n",
        24,
        "has no rule",
    ),
    (GOOD.replace("{kind: lira}", "{kind: rmia}") + "population: 0\n", 23, "set population to 200 or more"),
    (
        GOOD.replace("random_pattern", "typical").replace("kind: exposure", "kind: exposure_skewnormal"),
        22,
        "exposure_skewnormal ranks canaries",
    ),
    (GOOD.partition("estimators:")[0].replace("runs: 8", "runs: 1") + "leave_out: {clients: all}\n", 20, "runs is 1"),
]

OPTIONS = [
    (["--set", "sampler.size=9"], "--set sampler.size=9", "at most 4"),
    (["--set", "strategy.kind=fedmean"], "--set strategy.kind=fedmean", "fedmedian"),
    (["--set", "injections[9].copies=2"], "--set injections[9].copies=2", "has 2 entries"),
    (["--set", "client.lr"], "--set client.lr", "path=value"),
    (["--runs", "7"], "--set runs=7", "use 8"),
    (["--seed", "-3"], "--set seed=-3", "greater than or equal to 0"),
    (["--engine", "warp"], "--set speed.engine=warp", "should be 'lockstep' or 'flower'"),
    (["--sett", "a=b"], "No such option", "--set"),
    (["--runs", "many"], "Invalid value", "integer"),
]


def refused(tmp_path: Path, text: str, *options: str) -> tuple[str, Path]:
    """What the command says about a wrong scenario, with everything checked that holds for all of them."""
    file, out = tmp_path / "wrong.yaml", tmp_path / "out"
    file.write_text(text)
    done = CliRunner().invoke(app, ["run", str(file), "--out", str(out), *options])
    said = " ".join(done.stderr.split())
    assert done.exit_code == 2, said
    assert isinstance(done.exception, SystemExit)
    assert "Traceback" not in said
    assert not out.exists()
    assert sorted(tmp_path.iterdir()) == [file]
    return said, file


@pytest.mark.parametrize(("old", "new", "path", "says"), EDITS, ids=[edit[1][:40] for edit in EDITS])
def test_one_wrong_line_is_named_with_its_remedy(tmp_path: Path, old: str, new: str, path: str, says: str) -> None:
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)
    lines = [number for number, line in enumerate(text.splitlines(), 1) if new in line]
    said, file = refused(tmp_path, text)
    assert any(f"{file}:{line} {path}" in said for line in lines), said
    assert says in said


@pytest.mark.parametrize(("text", "line", "says"), TEXTS)
def test_a_wrong_file_is_named_with_its_remedy(tmp_path: Path, text: str, line: int | None, says: str) -> None:
    said, file = refused(tmp_path, text)
    assert (f"{file}:{line} " if line else f"{file} ") in said
    assert says in said


@pytest.mark.parametrize(("options", "source", "says"), OPTIONS, ids=lambda value: str(value)[:30])
def test_a_wrong_option_is_named_with_its_remedy(tmp_path: Path, options: list[str], source: str, says: str) -> None:
    said, _ = refused(tmp_path, GOOD, *options)
    assert source in said
    assert says in said


def test_all_mistakes_are_reported_in_one_message(tmp_path: Path) -> None:
    text = GOOD
    for old, new in (
        ("alpha: 1.0", "alpha: 0"),
        ("size: 2", "size: 5"),
        ("every: 2", "every: 9"),
        ("lr: 0.1", "lr: x"),
    ):
        text = text.replace(old, new)
    said, file = refused(tmp_path, text, "--set", "bootstrap=1")
    for place in (f"{file}:8", f"{file}:13", f"{file}:14", f"{file}:16", "--set bootstrap=1"):
        assert place in said


@pytest.mark.parametrize(
    ("change", "place", "says"),
    [
        # Too few rows: the largest of what was written is to blame, and what was not written never is.
        ({"clients: 4": "clients: 1301"}, ":6 clients", "lower clients to at most 185"),
        (
            {"clients: 4": "clients: 1301", "runs: 8": "runs: 8\npopulation: 100"},
            ":7 clients",
            "lower clients to at most",
        ),
        ({"runs: 8": "runs: 8\npopulation: 5000"}, ":5 population", "lower population to at most 1472"),
        ({"mislabelled, per_client: 2": "mislabelled, per_client: 300"}, ":10 injections", "need at most 1296"),
    ],
)
def test_too_few_rows_are_blamed_on_the_largest_that_was_written(
    tmp_path: Path, change: dict[str, str], place: str, says: str
) -> None:
    text = GOOD
    for old, new in change.items():
        text = text.replace(old, new)
    said, file = refused(tmp_path, text)
    assert f"{file}{place}" in said, said
    assert says in said


def test_name_taken_from_the_file_name_is_explained_in_errors(tmp_path: Path) -> None:
    (tmp_path / "my scenario.yaml").write_text(GOOD.replace("name: good\n", ""))
    done = CliRunner().invoke(app, ["check", str(tmp_path / "my scenario.yaml")])
    assert done.exit_code == 2
    assert "the file is called 'my scenario'" in done.stderr
    assert "write name: my_scenario in the file" in done.stderr


def test_a_scenario_comes_from_standard_input_too(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", "-"], input=GOOD.replace("name: good\n", ""))
    assert done.exit_code == 0, done.stderr
    assert "stdin/" in done.stdout
    wrong = CliRunner().invoke(app, ["check", "-"], input=GOOD.replace("size: 2", "size: 5"))
    assert wrong.exit_code == 2
    assert "stdin:13 sampler.size" in " ".join(wrong.stderr.split())


def test_a_stacked_executor_needs_a_model_that_stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmem.models.mlp.MLP.stackable", False)
    said, file = refused(tmp_path, GOOD + "speed: {executor: stacked}\n")
    assert f"{file}:24 speed.executor" in said
    assert "one_by_one" in said


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", str(tmp_path / "no.yaml"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "there is no such file" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_installed_command_does_the_same(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(GOOD.replace("dirichlet", "dirichelt"))
    command = [sys.executable, "-c", "from fedmem.cli.main import main; main()", "run", "wrong.yaml", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "wrong.yaml" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.yaml"]


def test_the_good_scenario_is_good(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    done = CliRunner().invoke(app, ["check", str(tmp_path / "good.yaml")])
    assert done.exit_code == 0, done.stderr
