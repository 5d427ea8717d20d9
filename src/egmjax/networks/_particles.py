"""Networks of particles that commute with permutations, rotations and reflections; `apply(params, x, t)`.

    ParticleNet   a perceptron of each pair: more from few particles
    VectorNet     messages filtered by distances, and vectors: a cluster at a fraction of the cost

A state is `y: [(n - 1) s]`, mean-free coordinates of `n` particles in `s` dimensions (`targets.mean_free_basis`), or
`(y, tau)` with types `tau: int32 [n]` that may be masked. The prediction is the velocity in the same coordinates,
beside it logits `[n, S]` of the types, or a scalar where `output_shape` is `()`; zero at initialisation. Only distances
and differences enter, so permuted particles have permuted velocities and logits, turned and mirrored ones have
velocities turned and mirrored, and a scalar stays as it is; all exactly.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from .._mean_free import mean_free_coordinates, mean_free_positions, pair_distances
from ..states import Categorical, Real, Space
from ._features import time_features
from ._heads import ScalarHead

LENGTH = 1e-2  # added in quadrature to lengths of vectors, whose gradient would be infinite at zero


class _OfParticles(nn.Module):
    """What both share: the state, what is known of a particle at first, and the answer.

    `scale` divides positions: give the reference's. Distances enter by `num_radial` Gaussians at centres from 0 to
    `reach` in these units; these features and positions are float32 whatever the `dtype` of all other products (see
    `networks`). Raises `ValueError` for a space or an output that is not of this form.
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

    def _start(self, x: Any, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Positions `[n, s]` in units of `scale`, and linear features of time and type `[n, width]`."""
        self._check()
        y, tau = x if isinstance(self.space, tuple) else (x, None)
        n = self.num_particles
        h = jnp.broadcast_to(nn.Dense(self.width)(time_features(t)), (n, self.width))
        if tau is not None:
            one_hot = jax.nn.one_hot(tau, self.space[1].num_states + 1)  # type: ignore[index, union-attr]
            h = h + nn.Dense(self.width, use_bias=False)(one_hot)
        return mean_free_positions(y, n) / self.scale, h

    def _answer(self, velocity: jax.Array, h: jax.Array) -> Any:
        """The velocity `[n, s]` in coordinates, beside logits where there are types."""
        moved = mean_free_coordinates(velocity)
        if not isinstance(self.space, tuple):
            return moved
        return moved, nn.Dense(self.output_shape[1][1], kernel_init=nn.initializers.zeros)(nn.silu(h))

    def _bumps(self, distances: jax.Array) -> jax.Array:
        """Gaussians `[..., num_radial]` of distances `[...]`, as wide as their centres are apart."""
        centres = jnp.linspace(0.0, self.reach, self.num_radial, dtype=distances.dtype)
        offsets = distances[..., None] - centres.reshape((1,) * distances.ndim + (-1,))
        return jnp.exp(-0.5 * jnp.square(offsets / (self.reach / max(self.num_radial - 1, 1))))

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


class ParticleNet(_OfParticles):
    """Messages over pair distances, velocities along pair differences.

        m_ij = f_l(h_i, h_j, |x_i - x_j|),     h_i <- h_i + W mean_j m_ij,     l = 1 .. depth
        v_i  = mean_j g(h_i, h_j, |x_i - x_j|) (x_i - x_j)

    E(n)-equivariant graph networks, Satorras et al., 2021, equations 3 to 6, with positions that no layer moves; the
    distance itself enters beside its Gaussians. Cost: about `n^2 width (width + num_radial)` multiplications in each of
    `depth + 1` layers.
    """

    @nn.compact
    def __call__(self, x: Any, t: jax.Array) -> Any:
        positions, h = self._start(x, t)
        distances = pair_distances(positions)
        radial = jnp.concatenate([distances[..., None], self._bumps(distances)], axis=-1)

        def dense(use_bias: bool = True) -> nn.Dense:
            return nn.Dense(self.width, use_bias, dtype=self.dtype)

        def pairs(h: jax.Array) -> jax.Array:
            """Two hidden layers of every pair, `[n, n, width]`."""
            first = dense()(h)[:, None] + dense(use_bias=False)(h)[None, :]
            first = first + nn.Dense(self.width, use_bias=False)(radial)
            return nn.silu(dense()(nn.silu(first)))

        for _ in range(self.depth):
            h = h + dense()(jnp.mean(pairs(nn.silu(h)), axis=1))
        if self.output_shape == ():
            return ScalarHead()(jnp.mean(nn.silu(h), axis=0))
        difference = positions[:, None, :] - positions[None, :, :]
        gain = nn.Dense(1, kernel_init=nn.initializers.zeros)(pairs(nn.silu(h)))
        return self._answer(jnp.mean(gain * difference, axis=1), h)


class VectorNet(_OfParticles):
    """Messages filtered by distances, velocities along sums of differences.

        F_ij = W phi(r_ij),     r_ij = |x_i - x_j|,     phi = 1 and Gaussians
        m_i = sum_j F_ij * (M h_j),     u_i^c = sum_j G_ij^c (Q h_j)^c (x_i - x_j)
        h_i <- h_i + B silu(LayerNorm(A h_i + C m_i + D |u_i|)),     v_i <- v_i + sum_c (E h_i)^c u_i^c

    `depth` times, each with weights of its own, and once more with twice the vectors for `v` alone. `h` has `width`
    numbers, `m` half of them, and there is a vector for every eight. Lengths of sums of vectors know of angles, which
    a particle's distances alone do not. Sources: filters of distances, SchNet, Schuett et al., 2017; vectors and their
    lengths, PaiNN, Schuett, Unke, Gastegger, 2021. Cost: about `n^2 num_radial width` multiplications in each of
    `depth + 1` layers, and `4 n width^2`; no perceptron of pairs.
    """

    width: int = 64
    num_radial: int = 32

    @nn.compact
    def __call__(self, x: Any, t: jax.Array) -> Any:
        positions, h = self._start(x, t)
        n, num_messages, num_vectors = self.num_particles, -(-self.width // 2), -(-self.width // 8)
        bumps = self._bumps(pair_distances(positions)).reshape(
            n * n, -1
        )  # pairs in one row: one matrix product
        radial = jnp.concatenate([jnp.ones_like(bumps[:, :1]), bumps], axis=-1)

        def dense(features: int, use_bias: bool = False) -> nn.Dense:
            return nn.Dense(features, use_bias, dtype=self.dtype)

        def filters(features: int) -> jax.Array:
            return dense(features)(radial).reshape(n, n, features)

        def gather(filtered: jax.Array, sent: jax.Array) -> jax.Array:
            # a product and a sum: as a contraction with a batch of channels this is several times slower
            return jnp.sum(filtered * sent[None], axis=1) / math.sqrt(n)

        def vectors(sent: jax.Array) -> list[jax.Array]:
            """A component `[n, num]` for each dimension of space."""
            filtered = filters(sent.shape[-1])
            total = gather(filtered, sent)
            each = [positions[:, d : d + 1].astype(sent.dtype) for d in range(positions.shape[1])]
            return [total * x_d - gather(filtered, sent * x_d) for x_d in each]

        def along(u: list[jax.Array]) -> jax.Array:
            gain = nn.Dense(u[0].shape[-1], kernel_init=nn.initializers.zeros)(nn.silu(h))
            return jnp.stack([jnp.sum(gain * component, axis=-1) for component in u], axis=-1)

        velocity = jnp.zeros_like(positions)
        for _ in range(self.depth):
            sent = nn.silu(h)
            m = gather(filters(num_messages), dense(num_messages, True)(sent))
            u = vectors(dense(num_vectors, True)(sent))
            lengths = jnp.sqrt(sum(component**2 for component in u) + LENGTH**2)
            hidden = dense(self.width)(h) + dense(self.width)(m) + dense(self.width)(lengths)
            h = h + dense(self.width, True)(nn.silu(nn.LayerNorm(dtype=self.dtype)(hidden)))
            if self.output_shape != ():
                velocity = velocity + along(u)
        if self.output_shape == ():
            return ScalarHead()(jnp.mean(nn.silu(h), axis=0))
        velocity = velocity + along(vectors(dense(2 * num_vectors, True)(nn.silu(h))))
        return self._answer(velocity, h)
