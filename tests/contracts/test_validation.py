"""Tests of `fedmem/contracts/validation.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guards.guarding_helpers import message_of, with_part

RETURNING = [
    *(("dataset", "BadDataset", "load", how, said) for how, said in {
        "none": "it returned nothing",
        "tuple": "it returned tuple",
        "high": "train.targets is 4 at row 3, should be 0 to 3",
        "low": "train.targets is -1 at row 3, should be 0 to 3",
        "floats": "train.targets is float64 of shape",
        "nan": "train.inputs has 64 values that are not finite, the first nan at row 5",
        "double": "train.inputs is float64 of shape",
        "empty": "no training rows",
        "narrow": "inputs of train have shape",
        "classes": "num_classes is 2.5",
        "owners": "natural is int64 of shape (3,)",
        "columns": "columns['age'] has 3 values",
        "class names": "class_names has 2 names, but 4 are needed",
        "same names": "class_names has a name twice",
        "client names": "client_names has 2 names, but 3 are needed",
    }.items()),
    *(("partition", "BadPartition", "assign", how, said) for how, said in {
        "none": "it returned nothing",
        "flat": "it returned int",
        "floats": "the rows of client 0 are float64",
        "masks": "the rows of client 0 are bool",
    }.items()),
    *(("partition", "BadShift", "shift", how, said) for how, said in {
        "none": "it returned nothing",
        "shape": "it returned float32 of shape",
        "nan": "not finite",
        "range": "outside of [0, 1]",
        "double": "it returned float64 of shape",
    }.items()),
    *(("model", "BadModel", "build", how, said) for how, said in {
        "none": "it returned nothing, should be a torch.nn.Module",
        "bare": "no parameters",
        "nan": "should be floating numbers, all of them finite",
    }.items()),
    *(("model", "BadModel", "forward", how, said) for how, said in {
        "none": "it returned nothing, should be floating logits of shape (2, 4)",
        "wide": "it returned float32 of shape (2, 8)",
        "flat": "it returned float32 of shape (4,)",
        "whole": "it returned int64 of shape (2, 4)",
    }.items()),
    *(("injection", "BadInjection", method, how, said) for method, how, said in [
        ("reserve_rows", "negative", "should be a whole number, 0 or more"),
        ("reserve_rows", "none", "it returned None"),
        ("total_copies", "fraction", "should be a whole number, 0 or more"),
        ("plan", "none", "it returned nothing"),
        ("plan", "owner", "owner is 99 at row 0, should be -1 to 2"),
        ("plan", "copies", "copies is 0 at row 0"),
        ("plan", "nan", "examples.inputs has 64 values that are not finite"),
        ("plan", "label", "examples.targets is 99 at row 0"),
        ("plan", "narrow", "examples.inputs has shape"),
        ("plan", "short", "owner is int32 of shape (1,)"),
        ("plan", "owners", "owners is 44 at row 0"),
        ("references", "none", "it returned nothing"),
        ("references", "few", "it returned 19 references"),
        ("references", "rows", "inputs are float32 of shape"),
    ]),
    *(("sampler", "BadSampler", "cohort", how, said) for how, said in {
        "none": "it returned nothing, should be whole numbers of shape (n,)",
        "negative": "it returned client -1, should be numbers from 0 to 2",
        "twice": "it returned client 0 twice",
        "mask": "it returned bool of shape (3,)",
        "outside": "it returned client 3, should be numbers from 0 to 2",
        "floats": "it returned float64 of shape (2,)",
        "unsorted": "it returned client 1 before 0",
        "table": "it returned int64 of shape (1, 2)",
        "text": "it returned str",
        "ragged": "it returned list, should be whole numbers",
    }.items()),
    ("sampler", "BadSampler", "reachable_clients", "ones", "it returned float64 of shape (3,), should be bool"),
    ("sampler", "BadSampler", "reachable_clients", "short", "it returned bool of shape (2,)"),
    ("sampler", "BadSampler", "probabilities", "above", "it returned 1.5 for client 0"),
    ("sampler", "BadSampler", "probabilities", "nan", "it returned nan for client 0"),
    ("sampler", "BadSampler", "probabilities", "zeros", "probability 0 for client 0, which the sampler has picked"),
    *(("client", "BadClient", method, how, said) for method, how, said in [
        ("batches", "none", "it returned nothing"),
        ("batches", "flat", "it returned int64 of shape (8,)"),
        ("batches", "floats", "it returned float64 of shape"),
        ("batches", "outside", "it returned position 1000000"),
        ("batches", "below", "it returned position -2"),
        ("final", "none", "it returned nothing, should be fedmem.contracts.client.Outcome"),
        ("final", "shape", "sent['layer.weight'] is float32 of shape (1, 64)"),
        ("final", "whole", "sent['layer.weight'] is int64"),
        ("final", "double", "sent['layer.weight'] is float64"),
        ("final", "fewer", "sent lacks parameter 'layer.weight'"),
        ("final", "more", "sent has an unknown parameter 'more'"),
        ("final", "kept", "kept['layer.weight'] is float32 of shape (1, 64)"),
        ("final", "report", "report['own'] is float32 of shape (3,)"),
        ("final", "remember", "memory['own'] is int"),
    ]),
    *(("defence", "BadDefence", "apply", how, said) for how, said in {
        "shape": "the update['layer.weight'] is float32 of shape (2, 4, 64)",
        "double": "the update['layer.weight'] is float64",
        "fewer": "the update lacks parameter 'layer.bias'",
    }.items()),
    *(("probe", "BadProbe", "observe", how, said) for how, said in {
        "none": "TypeError: 'NoneType' object is not iterable",
        "later": "ValueError: on purpose",
        "text": "it returned str, should be pairs",
        "nobody": "it returned a reading about no transition",
        "stranger": "it returned a reading about run 77",
        "number": "it returned float, should be a fedmem.contracts.measurement.Reading",
        "word": "value of the reading 'own' is 'high', should be a number",
        "reading": "it returned Reading, should be pairs",
        "undeclared": "the measure 'other', which it does not declare (it declares own)",
    }.items()),
    *(("probe", "BadProbe", "summarise", how, said) for how, said in {
        "none": "TypeError: 'NoneType' object is not iterable",
        "text": "it returned str, should be fedmem.contracts.measurement.Measurement",
        "later": "ValueError: on purpose",
    }.items()),
    *(("estimator", "BadEstimator", "estimate", how, said) for how, said in {
        "none": "TypeError: 'NoneType' object is not iterable",
        "later": "ValueError: on purpose",
        "text": "it returned str, should be fedmem.contracts.estimator.Estimate",
        "short": "cells of 'memorisation' are float64 of shape (1, ",
        "word": "value of 'memorisation' is 'high'",
        "undeclared": "the measure 'other', which it does not declare (it declares memorisation, own)",
        "single": "per_example of 'memorisation' is float64 of shape (99,)",
    }.items()),
    ("estimator", "BadEstimator", "tests", "none", "TypeError: 'NoneType' object is not iterable"),
    ("estimator", "BadEstimator", "tests", "run", "should be pairs of a run (0 to 1, None for all) and a reading"),
    ("estimator", "BadEstimator", "tests", "untested", "the measure 'other', which it does not declare"),
    ("estimator", "BadEstimator", "tests", "reading", "should be pairs of a run"),
    ("attack", "BadMembership", "scores", "none", "it returned nothing"),
    ("attack", "BadMembership", "scores", "short", "it returned float64 of shape"),
    ("attack", "BadMembership", "scores", "whole", "it returned int64 of shape"),
    *(("attack", "BadReconstruction", "reconstruct", how, said) for how, said in {
        "none": "TypeError: 'NoneType' object is not iterable",
        "fewer": "reconstructions, should be one for each of",
        "arrays": "it returned float32 of shape",
        "narrow": "inputs are float32 of shape",
        "labels": "labels are int64 of shape (0,)",
        "word": "distance is 'far'",
    }.items()),
]  # fmt: skip


@pytest.mark.parametrize(("family", "kind", "method", "how", "said"), RETURNING)
def test_wrong_return_value_of_a_part_fails_the_run(
    family: str, kind: str, method: str, how: str, said: str, tmp_path: Path
) -> None:
    text = message_of(tmp_path, with_part(family, kind, at=method, how=how))
    name = "Net" if method == "forward" else kind
    assert f"{family} tests.bad_parts:{name}" in text
    assert method in text
    assert said in text
