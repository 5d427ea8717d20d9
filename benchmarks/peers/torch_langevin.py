"""Langevin chains in a double well by the package torchebm: its own energy, its own sampler.

from benchmarks.peers.torch_langevin import Peer         # needs torch and torchebm
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torchebm.core import DoubleWellModel
from torchebm.samplers import LangevinDynamics


class Peer:
    """`height sum_i (x_i^2 - 1)^2` and unadjusted steps `x - h grad E + sqrt(2 h) noise`."""

    def __init__(self, height: float, step_size: float) -> None:
        torch.manual_seed(0)
        self.model = DoubleWellModel(barrier_height=height)
        self.sampler = LangevinDynamics(self.model, step_size=step_size)

    def energy(self, x: np.ndarray) -> np.ndarray:
        """Of each row of `x [n, dim]`."""
        with torch.no_grad():
            return self.model(torch.from_numpy(x)).numpy()

    def sample(self, x: np.ndarray, num_steps: int) -> np.ndarray:
        """Where the chains that start from the rows of `x` are after so many steps."""
        return self.sampler.sample(x=torch.from_numpy(x.copy()), n_steps=num_steps).numpy()

    def with_threads(self, num_threads: int, run: Callable[[], Any]) -> Any:
        """`run()` on so many threads."""
        torch.set_num_threads(num_threads)
        return run()
