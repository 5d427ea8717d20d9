"""The published EGM training step and sampler in plain PyTorch: full tensors `[states, proposals, sites]`.

    from benchmarks.peers.torch_egm import Peer         # needs the extra `peers`

After the description of Woo et al., Energy-based generator matching (2025), with its default sizes: denoiser of width
32 (embedding 8) and energy network of width 256 (embedding 4), both with sinusoidal time; masked path `kappa = t`;
squared error; Adam. Naive targets come from uniform completions; bootstrapped ones from `x_r` at `r = min(t + .01, 1)`,
drawn by the path's bridge of a flat target or by the reversed noising kernel, and weighted by the energy network, which
is itself fitted to the log-mean of `exp(-E)` in the same step.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

STEP = 0.01
Kernel = Literal["bridge", "reverse"]


class PublishedMLP(nn.Module):
    """Symbols embedded, times by sines; linear, GELU, two linear layers, two GELUs, linear."""

    frequencies: torch.Tensor

    def __init__(self, sites: int, embedding: int, width: int, outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, embedding)
        self.clock = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.layers = nn.Sequential(
            nn.Linear(sites * embedding + width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.GELU(),
            nn.Linear(width, outputs),
        )
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(width // 2) / (width // 2))
        self.register_buffer("frequencies", frequencies)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """`x [..., sites]`, `t` of the same leading shape."""
        angles = t[..., None] * self.frequencies
        clock = self.clock(torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1))
        return self.layers(torch.cat([self.embedding(x).flatten(-2), clock], dim=-1))


class Peer:
    """Networks, optimisers and a buffer of states `x1 [n, sites]` of the `length x length` Ising torus."""

    def __init__(
        self, x1: torch.Tensor, length: int, beta: float, num_proposals: int, num_threads: int = 2
    ) -> None:
        torch.set_num_threads(num_threads)
        torch.manual_seed(0)
        self.x1, self.length, self.beta, self.num_proposals = x1.long(), length, beta, num_proposals
        self.sites = length**2
        self.denoiser = PublishedMLP(self.sites, 8, 32, 3 * self.sites)
        self.log_density = PublishedMLP(self.sites, 4, 256, 1)
        self.optimizer = torch.optim.Adam(self.denoiser.parameters(), lr=1e-3)
        self.density_optimizer = torch.optim.Adam(self.log_density.parameters(), lr=1e-3)

    def naive_step(self, num_states: int) -> float:
        """One update of the denoiser on self-normalised targets from the energy."""
        xt, t = self.noised(num_states)
        with torch.no_grad():
            x1 = self.completions(xt)
            weights = torch.softmax(-self.energy(x1), dim=1)
            target = torch.einsum("nk,nkis->nis", weights, nn.functional.one_hot(x1, 3).float())
        return self.update(xt, t, target)

    def bootstrapped_step(self, num_states: int, kernel: Kernel = "bridge") -> float:
        """One update of the energy network, and one of the denoiser on targets weighted by it."""
        xt, t = self.noised(num_states)
        with torch.no_grad():
            log_mean = torch.logsumexp(-self.energy(self.completions(xt)), dim=1) - math.log(
                self.num_proposals
            )
            is_masked = xt == 2
            log_z = torch.where(is_masked, torch.log(2 * (1 - t))[:, None], torch.log(t)[:, None]).sum(-1)
        loss = ((self.log_density(xt, t)[:, 0] - log_mean - log_z) ** 2).mean()
        self.density_optimizer.zero_grad()
        loss.backward()
        self.density_optimizer.step()
        with torch.no_grad():
            r = torch.clamp(t + STEP, max=1.0)
            xr = self.earlier(xt, t, r, kernel)
            times = r[:, None].expand(xr.shape[:2])
            log_w = self.log_density(xr, times)[..., 0]
            if kernel == "bridge":
                log_w = log_w - self.log_reference(xr, times)
            weights = torch.softmax(log_w, dim=1)
            now, later = nn.functional.one_hot(xt, 3).float(), nn.functional.one_hot(xr, 3).float()
            mean = torch.einsum("nk,nkis->nis", weights, later)
            gap = (r - t)[:, None, None]
            target = ((1 - t)[:, None, None] * mean - (1 - r)[:, None, None] * now) / gap
        return self.update(xt, t, target)

    def sample(self, num_samples: int, num_steps: int) -> torch.Tensor:
        """Euler steps: a mask is revealed with probability `1 - exp(-h rate)`, all that are left in the last step."""
        with torch.no_grad():
            x = torch.full((num_samples, self.sites), 2)
            for n in range(num_steps):
                t = torch.full((num_samples,), n / num_steps)
                probs = torch.softmax(self.logits(x, t), dim=-1)
                symbols = torch.multinomial(probs.flatten(0, 1), 1).view(x.shape)
                reveals = 1.0 - math.exp(-1.0 / (num_steps - n)) if n < num_steps - 1 else 1.0
                x = torch.where((x == 2) & (torch.rand(x.shape) < reveals), symbols, x)
            return x

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        """`-beta sum_<ij> s_i s_j`."""
        spins = (2 * x - 1).float().unflatten(-1, (self.length, self.length))
        return -self.beta * (spins * (spins.roll(-1, -1) + spins.roll(-1, -2))).sum((-1, -2))

    def noised(self, num_states: int) -> tuple[torch.Tensor, torch.Tensor]:
        """States drawn from the buffer and masked to random times."""
        x1 = self.x1[torch.randint(len(self.x1), (num_states,))]
        t = torch.rand(num_states)
        return torch.where(torch.rand(x1.shape) < t[:, None], x1, 2), t

    def completions(self, xt: torch.Tensor) -> torch.Tensor:
        """Masks filled uniformly, `[states, proposals, sites]`."""
        symbols = torch.randint(2, (len(xt), self.num_proposals, self.sites))
        return torch.where((xt == 2)[:, None], symbols, xt[:, None])

    def earlier(self, xt: torch.Tensor, t: torch.Tensor, r: torch.Tensor, kernel: Kernel) -> torch.Tensor:
        """`x_r [states, proposals, sites]`."""
        if kernel == "bridge":
            reveals = (r - t) / (1 - t)
        else:
            rate = 2 * (1 - t / r)
            reveals = torch.where(r < 1, rate / (1 + rate), 1.0)
        shape = (len(xt), self.num_proposals, self.sites)
        revealed = (xt == 2)[:, None] & (torch.rand(shape) < reveals[:, None, None])
        return torch.where(revealed, torch.randint(2, shape), xt[:, None])

    def log_reference(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """`sum_masked log 2(1 - t) + sum_known log t`, by which the bridge's draws are weighted."""
        num_masked = (x == 2).sum(-1)
        return num_masked * torch.log(2 * (1 - t).clamp(min=1e-30)) + (self.sites - num_masked) * torch.log(t)

    def logits(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Of the denoiser, `[..., sites, 3]`; the mask's is minus infinity."""
        logits = self.denoiser(x, t).unflatten(-1, (self.sites, 3))
        return torch.cat([logits[..., :2], torch.full_like(logits[..., 2:], -math.inf)], dim=-1)

    def update(self, xt: torch.Tensor, t: torch.Tensor, target: torch.Tensor) -> float:
        """Squared error, summed over symbols and averaged over sites and states; one step of Adam."""
        loss = ((torch.softmax(self.logits(xt, t), dim=-1) - target) ** 2).sum(-1).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
