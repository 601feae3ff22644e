"""Types of arrays and of parameters.

Letters everywhere: N clients, K in the cohort, R runs, m audit examples, C classes, P parameters, T transitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

Params = dict[str, "Tensor"]
"""Named parameters; the stacked form has one leading axis."""
