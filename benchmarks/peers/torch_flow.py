"""A flow in the plane trained and sampled by the package flow_matching, with a perceptron in plain PyTorch.

    from benchmarks.peers.torch_flow import Peer         # needs torch and flow_matching

The package makes `x_t` and its velocity (`CondOTProbPath`) and integrates (`ODESolver`, Euler); network, squared error
and Adam are PyTorch's, as in the package's own examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from flow_matching.path import CondOTProbPath
from flow_matching.solver import ODESolver
from torch import nn

Layers = Sequence[tuple[np.ndarray, np.ndarray]]  # (kernel [inputs, outputs], bias [outputs]) of each layer


class VelocityMLP(nn.Module):
    """`(x, t)` through linear layers with SiLU between them."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        for kernel, bias in layers:
            linear = nn.Linear(*kernel.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(kernel.T.copy()))
                linear.bias.copy_(torch.from_numpy(bias.copy()))
            modules += [linear, nn.SiLU()]
        self.layers = nn.Sequential(*modules[:-1])

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """`x [n, dim]`, `t [n]` or a scalar."""
        return self.layers(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], dim=-1))


class Peer:
    """A network of the given layers, its optimiser, and rows of data `x1 [n, dim]`."""

    def __init__(self, layers: Layers, x1: np.ndarray, learning_rate: float) -> None:
        torch.manual_seed(0)
        self.x1 = torch.from_numpy(np.array(x1))
        self.network = VelocityMLP(layers)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)
        self.path = CondOTProbPath()
        self.solver = ODESolver(self.network)

    def with_threads(self, num_threads: int, run: Callable[[], Any]) -> Any:
        """`run()` on so many threads."""
        torch.set_num_threads(num_threads)
        return run()

    def loss(self, x0: torch.Tensor, x1: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Squared error of the velocity, averaged over states and coordinates."""
        sample = self.path.sample(x_0=x0, x_1=x1, t=t)
        return ((self.network(sample.x_t, sample.t) - sample.dx_t) ** 2).mean()

    def step(self, num_states: int) -> float:
        """One update on rows drawn at random, at random times."""
        x1 = self.x1[torch.randint(len(self.x1), (num_states,))]
        loss = self.loss(torch.randn_like(x1), x1, torch.rand(num_states))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def sample(self, num_samples: int, num_steps: int) -> torch.Tensor:
        """Euler steps of equal length from a standard Gaussian."""
        x0 = torch.randn(num_samples, self.x1.shape[1])
        return self.solver.sample(x_init=x0, step_size=1.0 / num_steps, method="euler")

    def loss_and_gradient(self, x0: np.ndarray, x1: np.ndarray, t: np.ndarray) -> tuple[float, Layers]:
        """Of `loss`, with the layout of `Layers`."""
        loss = self.loss(*map(torch.from_numpy, (x0, x1, t)))
        found = [a.numpy() for a in torch.autograd.grad(loss, list(self.network.parameters()))]
        return loss.item(), [(kernel.T, bias) for kernel, bias in zip(found[::2], found[1::2])]
