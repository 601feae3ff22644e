"""Names of arrays."""

import numpy as np
import pytest

from fedmem.datasets._named_arrays import choose_names, dataset_of_arrays
from fedmem.errors import ComponentError


def test_each_array_has_one_of_its_names() -> None:
    assert choose_names(["x_train", "y"], "f", "p") == {"inputs": "x_train", "targets": "y"}
    for names, says in ((["x", "inputs", "y"], "both inputs and x"), (["x", "y", "x_test"], "only one of")):
        with pytest.raises(ComponentError, match=says):
            choose_names(names, "f", "p")


def test_names_of_classes_are_those_that_are_given() -> None:
    arrays = {"inputs": np.eye(10), "targets": np.arange(10) % 2, "class_names": np.array(["no", "yes"])}
    data = dataset_of_arrays(arrays, np.random.default_rng(0), path="p")
    assert data.class_names == ("no", "yes")
