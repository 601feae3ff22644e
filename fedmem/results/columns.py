"""The meaning of each column of the frames of a run, one line each, for exports that describe their tables."""

from __future__ import annotations

from collections.abc import Mapping

_MODEL: Mapping[str, str] = {
    "run": "the run, from 0",
    "round": "the round, from 1; 0 is the initial model",
    "level": "where the model was read: local (at one client), sum (over several clients), global (after aggregation)",
    "client": "the client, from 0; -1 for no single client",
    "client_name": "the name of the client in the data; empty where it has none",
}

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "measurements": {
        "scope": "what the row is about: run, round (all runs at a round), summary (all runs), run_summary (one run)",
        **_MODEL,
        "run": "the run, from 0; missing for all runs together",
        "round": "the observed round; missing for the summary",
        "subject": "a kind of audit example, or the number of one example; empty for values of whole models",
        "source": "the estimator or probe",
        "metric": "the measure; .null is its value without memorisation, .p its p, .difference a paired difference",
        "value": "the number; empty where it is undefined",
        "low": "lower end of the 95 % interval; empty without an interval",
        "high": "upper end of the 95 % interval; empty without an interval",
        "n": "number of examples or models behind the value",
    },
    "summary": {
        "kind": "the kind of audit example; empty for values of whole models",
        "measure": "the measure, as the first screen names it",
        "shows": "what a significant value means",
        "level": "local (owning client), global (aggregate), or retention",
        "value": "the number; empty where it is undefined",
        "low": "lower end of the 95 % interval; empty without an interval",
        "high": "upper end of the 95 % interval; empty without an interval",
        "n": "number of examples or models behind the value",
        "null": "the value without memorisation; empty where there is none",
        "p": "p of no memorisation; empty where there is none",
        "p_adjusted": "p by Holm's method over the measures of its kind and level; it decides the verdict",
        "num_tests": "how many tests p is adjusted over",
        "state": "significant, below (the value without memorisation), not significant, or undefined",
        "saturated": "whether the value is too near an end of its measure to be compared",
    },
    "evidence": {
        **_MODEL,
        "set": "the examples: audit, test, or population (reference data)",
        "subject": "the number of the example in its set; for the set audit, the subject of the table audit",
        "loss": "negative log probability of the label, in nats",
        "margin": "log odds of the label",
        "correct": "whether the prediction is the label; for texts, the share of tokens that are",
    },
    "signals": {
        **_MODEL,
        "name": "the measure of the signal",
        "subject": "the audit example: the subject of the table audit",
        "value": "the value of the model on the example; empty where it is undefined",
    },
    "set_signals": {
        **_MODEL,
        "set": "the examples: test, or population (reference data)",
        "name": "the quantity of the signal; of a value for each class, with the class after a point",
        "subject": "the number of the example in its set",
        "value": "the value of the model on the example; empty where it is undefined",
    },
    "ranks": {
        **_MODEL,
        "family": "the kind of canary",
        "label": "the label that its references have too",
        "count": "number of references",
        "subject": "the canary: the subject of the table audit",
        "less": "number of references with a smaller loss than the canary",
        "ties": "number of references with the same loss",
    },
    "audit": {
        "subject": "the number of the audit example, from 0",
        "injection": "the position of its injection in the scenario, from 0",
        "kind": "its kind",
        "role": "canary, atypical or typical",
        "owner": "its owning client",
        "owner_name": "the name of the owning client in the data; empty where it has none",
        "copies": "how often it is trained on in each epoch, where it is included",
        "start": "first round in which an included example is trained on",
        "stop": "last such round; 2147483647 where there is none",
        "target": "the label that is trained on; -1 for none",
        "target_name": "the name of that label; empty where it has none",
        "true_target": "the label of the row in the data set; -1 for none",
        "true_target_name": "the name of the true label; empty where it has none",
        "id": "the number of its row in the data set; negative for an example that was made",
        "text": "the example in writing; empty for images and series",
        "draw": "equal for examples that are in or out together; only where some are",
    },
    "inclusion": {
        "run": "the run, from 0",
        "subject": "the audit example: the subject of the table audit",
        "is_in": "whether the run trained on the example, by random inclusion",
    },
    "participation": {
        "run": "the run, from 0",
        "round": "the round, from 1",
        "client": "the client that participated",
        "client_name": "the name of the client in the data; empty where it has none",
        "num_examples": "number of rows that it trained on",
        "failed": "whether it failed and was left out",
        "probability": "its inclusion probability in this round; empty where it is not known",
    },
}
"""Table -> column -> its meaning. Columns of labels are described by the components that declare them."""
