"""What tests of npz share."""

from __future__ import annotations

import numpy as np

X = np.linspace(0, 1, 60, dtype=np.float32).reshape(20, 3)


Y = np.arange(20) % 2
