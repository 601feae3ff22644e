"""scikit-learn's handwritten digits, with the forms that they were copied from as natural clients."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.data import Dataset, Examples
from fedmem.datasets._splits import stratified_sample
from fedmem.errors import ComponentError
from fedmem.modalities.images import Images

_ROWS = 1797
_IMAGES_SHA256 = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
# The file is 14 filled-in forms of 122 to 130 digits, one after the other: every form asks for the same sequence.
_FORM_STARTS = (0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667, 1797)


@cache
def _read_digits() -> tuple[NDArray[Any], NDArray[Any]]:
    """Pixels (rows, 64) and labels (rows,) of a text file, parsed once in a process; they must not be changed."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images, labels


@dataclass(frozen=True, kw_only=True)
class Digits:
    """1797 handwritten digits of 8x8 pixels in ten classes; ships inside scikit-learn, nothing is downloaded.

    Inputs (n, 1, 8, 8) float32 are the grey levels 0..16 divided by 16; targets are the digits. `ids` are row
    numbers of the data set. `natural` is the form (0..13) that a row was written on. The forms are recovered from the
    order of the labels, because every form asks for the same sequence of digits. They differ in handwriting, but the
    13 people of the test part filled in 14 forms, so a form is not quite a person.

    Fields

    - `test`: rows held out as the test set.
    - `forms`: the forms whose rows are used; null for all.

    Guarantees:

    - train and test are disjoint and hold all rows of the forms (all forms have 1797), each sorted by row number;
    - the test set is stratified: every class has its exact share of rows, rounded up or down;
    - the bytes are those of the published file, or loading fails.

    Errors: `ComponentError` if the installed scikit-learn ships different images, and for an unknown form. Also if
    fewer than ten rows are left to train on.

    >>> data = Digits(test=297).load(np.random.default_rng(0))
    >>> data.train.inputs.shape, len(data.test), data.num_classes, int(data.natural.max()) + 1
    ((1500, 1, 8, 8), 297, 10, 14)

    Reference: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI repository, CC BY 4.0.
    """

    test: Annotated[int, annotated_types.Ge(10), annotated_types.Le(_ROWS - 10)] = 297
    forms: Annotated[tuple[int, ...] | None, "identity_neutral"] = None

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the rows that scikit-learn ships and draw the test set."""
        images, labels = _read_digits()
        digest = hashlib.sha256(images.astype(np.uint8).tobytes()).hexdigest()
        if digest != _IMAGES_SHA256:
            raise ComponentError(
                "dataset",
                f"the digits of the installed scikit-learn are not the published ones (sha256 {digest}, "
                f"expected {_IMAGES_SHA256}); reinstall scikit-learn",
            )
        examples = Examples(
            inputs=(images / 16).astype(np.float32).reshape(_ROWS, 1, 8, 8),
            targets=labels.astype(np.int64),
            ids=np.arange(_ROWS),
        )
        forms = np.repeat(np.arange(len(_FORM_STARTS) - 1), np.diff(_FORM_STARTS))
        if self.forms is not None:
            chosen = np.flatnonzero(np.isin(forms, self.forms))
            examples, forms = examples.take(chosen), forms[chosen]
            self._check(examples, forms)
        in_test = np.zeros(len(examples), dtype=bool)
        in_test[stratified_sample(examples.targets, self.test, rng)] = True
        return Dataset(
            train=examples.take(np.flatnonzero(~in_test)),
            test=examples.take(np.flatnonzero(in_test)),
            num_classes=10,
            modality=Images(),
            natural=forms[~in_test],
        )

    def _check(self, examples: Examples, forms: NDArray[Any]) -> None:
        unknown = sorted(set(self.forms or ()) - set(range(len(_FORM_STARTS) - 1)))
        if unknown or not self.forms:
            raise ComponentError("dataset.forms", f"{unknown or 'nothing'} is no form; choose from 0 to 13")
        if len(examples) - self.test < 10:
            raise ComponentError(
                "dataset.test",
                f"{self.test} test rows of {len(examples)} in forms {sorted(set(forms.tolist()))} leave too few to "
                f"train on; lower test to {max(10, len(examples) // 5)}",
            )
