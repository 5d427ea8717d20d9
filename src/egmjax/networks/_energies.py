"""Networks for energies: one scalar from a network with an output the shape of the state, or from symbols."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class InnerProduct(nn.Module):
    """`<x, field(x, t)>`, a scalar; `field` is any network whose output has the shape of the real state `x`.

    Where the output of `field` is a pair, of that shape and a scalar, it is the pair of inner product and scalar: the
    second is what `ebm.preconditioned_psi` takes for an offset.

    Its gradient, `field + (d field / dx)^T x`, is as expressive as the field itself, which a scalar on top of the last
    layer is not. Zero at initialisation where the field is. Costs one call of `field`.
    """

    field: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array | tuple[jax.Array, jax.Array]:
        field = self.field(x, t)  # type: ignore[operator]
        if isinstance(field, tuple):
            return jnp.sum(x * field[0]), field[1]
        return jnp.sum(x * field)


class RestrictedBoltzmann(nn.Module):
    """`E(x) = -sum_i a_i(x_i) - sum_j log((1 + exp(b_j + sum_i W_ji(x_i))) / 2)`: hidden units summed out exactly.

    The free energy of a restricted Boltzmann machine with `num_hidden` two-valued hidden units, for int `x [sites]` of
    any number of symbols (Smolensky, 1986; Salakhutdinov, Mnih and Hinton, 2007); a mask adds nothing to its sums. Up
    to the scale of `W` at the start, `init_scale`, it is zero at initialisation. Ignores `t`. Cost: `sites *
    num_states * num_hidden` multiplications.
    """

    num_states: int
    num_hidden: int
    init_scale: float = 0.05

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array | None = None) -> jax.Array:
        symbols = jax.nn.one_hot(x, self.num_states).reshape(-1)
        visible = nn.Dense(1, use_bias=False, kernel_init=nn.initializers.zeros)(symbols)
        inner = nn.Dense(self.num_hidden, kernel_init=nn.initializers.normal(self.init_scale))(symbols)
        return -visible[0] - jnp.sum(nn.softplus(inner) - jnp.log(2.0))


class PairEnergy(nn.Module):
    """`E(x) = -sum_i h_i(x_i) - sum_<ij> J_ij 1{x_i = x_j}` on the `length x length` torus, all fields and bonds free.

    Sites and bonds as in `targets.Ising`, which it contains (`J_ij = 2 beta J`), for int `x [length ** 2]`; a mask adds
    nothing. Zero at initialisation. Ignores `t`. Cost: `2 sites num_states` multiplications.
    """

    length: int
    num_states: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array | None = None) -> jax.Array:
        length = self.length
        symbols = jax.nn.one_hot(x, self.num_states)
        fields = self.param("fields", nn.initializers.zeros, symbols.shape)
        bonds = self.param("bonds", nn.initializers.zeros, (2, length, length))
        grid = symbols.reshape(length, length, self.num_states)
        equal = jnp.stack([jnp.sum(grid * jnp.roll(grid, -1, axis), axis=-1) for axis in (1, 0)])
        return -jnp.sum(fields * symbols) - jnp.sum(bonds * equal)
