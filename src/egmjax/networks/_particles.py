"""A network of particles that commutes with permutations, rotations and reflections."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from .._mean_free import mean_free_coordinates, mean_free_positions, pair_distances
from ..states import Categorical, Real, Space
from ._features import time_features
from ._heads import ScalarHead


class ParticleNet(nn.Module):
    """Messages over pair distances, velocities along pair differences; `apply(params, x, t)`, zero at initialisation.

        m_ij = f_l(h_i, h_j, |x_i - x_j|),     h_i <- h_i + W mean_j m_ij,     l = 1 .. depth
        v_i  = mean_j g(h_i, h_j, |x_i - x_j|) (x_i - x_j)

    A state is `y: [(n - 1) s]`, mean-free coordinates of `n` particles in `s` dimensions (`targets.mean_free_basis`),
    or `(y, tau)` with types `tau: int32 [n]` that may be masked. The prediction is the velocity in the same
    coordinates, beside it logits `[n, S]` of the types, or a scalar where `output_shape` is `()`. Only distances and
    differences enter, so permuted particles have permuted velocities and logits, turned and mirrored ones have
    velocities turned and mirrored, and a scalar stays as it is; all exactly (E(n)-equivariant graph networks, Satorras
    et al., 2021, equations 3 to 6, with positions that no layer moves).

    `scale` divides positions: give the reference's. Distances enter as they are and as `num_radial` Gaussians at
    centres from 0 to `reach` in these units; these features and positions are float32 whatever the `dtype` of all other
    products (see `networks`). Cost: about `n^2 width (width + num_radial)` multiplications in each
    of `depth + 1` layers. Raises `ValueError` for a space or an output that is not of this form.
    """

    space: Space
    output_shape: Any
    num_particles: int
    width: int = 32
    depth: int = 2
    scale: float = 1.0
    num_radial: int = 16
    reach: float = 5.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Any, t: jax.Array) -> Any:
        self._check()
        y, tau = x if isinstance(self.space, tuple) else (x, None)
        n = self.num_particles
        positions = mean_free_positions(y, n) / self.scale
        radial = self._radial(pair_distances(positions))

        def dense(use_bias: bool = True) -> nn.Dense:
            return nn.Dense(self.width, use_bias, dtype=self.dtype)

        def pairs(h: jax.Array) -> jax.Array:
            """Two hidden layers of every pair, `[n, n, width]`."""
            first = dense()(h)[:, None] + dense(use_bias=False)(h)[None, :]
            first = first + nn.Dense(self.width, use_bias=False)(radial)
            return nn.silu(dense()(nn.silu(first)))

        h = jnp.broadcast_to(nn.Dense(self.width)(time_features(t)), (n, self.width))
        if tau is not None:
            one_hot = jax.nn.one_hot(tau, self.space[1].num_states + 1)  # type: ignore[index, union-attr]
            h = h + nn.Dense(self.width, use_bias=False)(one_hot)
        for _ in range(self.depth):
            h = h + dense()(jnp.mean(pairs(nn.silu(h)), axis=1))
        if self.output_shape == ():
            return ScalarHead()(jnp.mean(nn.silu(h), axis=0))
        difference = positions[:, None, :] - positions[None, :, :]
        gain = nn.Dense(1, kernel_init=nn.initializers.zeros)(pairs(nn.silu(h)))
        velocity = mean_free_coordinates(jnp.mean(gain * difference, axis=1))
        if tau is None:
            return velocity
        return velocity, nn.Dense(self.output_shape[1][1], kernel_init=nn.initializers.zeros)(nn.silu(h))

    def _radial(self, distances: jax.Array) -> jax.Array:
        """Features of distances `[..., 1 + num_radial]`, in units of `scale`; neighbouring Gaussians overlap."""
        centres = jnp.linspace(0.0, self.reach, self.num_radial, dtype=distances.dtype)
        offsets = distances[..., None] - centres.reshape((1,) * distances.ndim + (-1,))
        width = self.reach / max(self.num_radial - 1, 1)
        bumps = jnp.exp(-0.5 * jnp.square(offsets / width))
        return jnp.concatenate([distances[..., None], bumps], axis=-1)

    def _check(self) -> None:
        """Raises `ValueError` unless space and output are those of `num_particles` particles."""
        n = self.num_particles
        parts = self.space if isinstance(self.space, tuple) else (self.space,)
        match parts:
            case (Real((dim,)),):
                expected: Any = (dim,)
            case (Real((dim,)), Categorical(sites, num_states)) if sites == n:
                expected = ((dim,), (n, num_states))
            case _:
                raise ValueError(
                    f"space: expected Real and at most a type for each of {n} particles, got {self.space}"
                )
        if n < 2 or dim % (n - 1):
            raise ValueError(f"num_particles: {dim} coordinates are not mean-free ones of {n} particles")
        if self.output_shape not in ((), expected):
            raise ValueError(f"output_shape: expected {expected} or (), got {self.output_shape}")
