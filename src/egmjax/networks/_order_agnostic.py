"""A network for sites in any order: one sum over what is known, then a perceptron of each site alone."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ._causal import SymbolNet


class OrderAgnosticMLPs(SymbolNet):
    """Logits `[sites, S]` of all sites from any set of known ones; `apply(params, x)`, the mask `S` where unknown.

        h_i = silu(sum_(j known, j != i) A_(i j)[x_j] + b_i),    h_i = h_i + silu(W_i h_i + c_i) ...
        logits_i = V_i h_i + sum_(j known, j != i) U_(i j)[x_j] + d_i

    No hidden unit serves two sites, so one row costs a `sites`-th of a call, and rows of as many contexts as there are
    sites what all rows of one context do: `apply(params, x, i, method="row")` is row `i`, `apply(params, contexts,
    method="each")` row `i` of `contexts[i]`; see `processes.rowwise`. As an order-agnostic NADE (Uria, Murray and
    Larochelle, 2014) whose first layer alone sees the other sites.

    Two networks know of symmetric targets, which are then sampled with all symbols alike, exactly (`odd` is
    `equivariant` for two states):

        h_i[s] = silu(sum_j (1{x_j = s} - 1 / S) A_(i j) + B_(i j) + b_i),    logits_i[s] = V_i h_i[s] + ...

    with hidden layers that also see the mean over symbols.

    `tied`, a `paths.TiedRows` of `paths.tie_by_displacement(..., any_order=True)`: all sites share their parameters,
    and `A_(i j)` is of the displacement from `i` to `j` alone, times a weight that has it learn of near places before
    far ones. What a row sees is then put in the order of displacements, so that rows of any sites are one product.
    Without it every site has its own, and rows of different sites read `sites width` numbers each.

    Costs `sites width` products a row for two states that are not `odd`, twice that where `odd`, `S` times it for
    symbols, and `width^2` for each further layer. Raises `ValueError` as `SiteMLPs`, and for `tied` of another number
    of rows, of rows that are not all of one kind, or that see two places of one kind.
    """

    sites: int
    tied: Any = None

    def setup(self) -> None:
        self._check()
        self.table, self.scale = _places(self.sites, self.tied)
        places, many, width = self.table.shape[1], self._inputs_of_a_place, self.width
        zeros, of_rows = nn.initializers.zeros, self._of_rows
        inputs = nn.initializers.normal(places**-0.5)
        hidden = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=(0,))
        has_mean, outputs = self._is_symmetric, self._outputs
        self.first = of_rows("kernel_0", inputs, places * many, width)
        self.known = of_rows("known_0", inputs, places, width) if self._is_symmetric else None
        self.biases = [of_rows(f"bias_{n}", zeros, 1, width) for n in range(self.depth)]
        self.kernels = [of_rows(f"kernel_{n}", hidden, width, width) for n in range(1, self.depth)]
        self.means = [
            of_rows(f"mean_{n}", zeros, width, width) if has_mean else None for n in range(1, self.depth)
        ]
        self.head = of_rows("head", zeros, width, outputs)
        self.skip = of_rows("skip", zeros, places * many, outputs)
        # an offset common to all symbols is none
        self.offset = None if self._is_symmetric else of_rows("offset", zeros, 1, outputs)

    def __call__(self, x: jax.Array, t: Any = None) -> jax.Array:
        """All rows, `[sites, S]`; a mask does not tell the time."""
        return self.each(jnp.broadcast_to(x, (self.sites, self.sites)))

    def row(self, x: jax.Array, i: Any) -> jax.Array:
        """Row `i`, `[S]`."""
        return self._rows(x[None], jnp.asarray(i)[None])[0]

    def each(self, contexts: jax.Array) -> jax.Array:
        """Row `i` of `contexts[i]`, `[sites, S]`."""
        return self._rows(contexts, slice(None))

    @property
    def _is_symmetric(self) -> bool:
        return self.odd or self.equivariant

    def _of_rows(self, name: str, init_fn: Any, *shape: int) -> jax.Array:
        """Parameters `[1, *shape]` of all rows, or `[sites, *shape]`."""
        return self.param(name, init_fn, (self.sites if self.tied is None else 1, *shape))

    def _rows(self, contexts: jax.Array, which: Any) -> jax.Array:
        """Rows `which` of as many contexts, `[k, S]`."""

        def times(a: jax.Array, kernel: jax.Array) -> jax.Array:
            if self.tied is None:
                return jnp.einsum("ksp,kpw->ksw", a, kernel[which])
            return jnp.einsum("ksp,pw->ksw", a, kernel[0])

        def bias(kernel: jax.Array) -> jax.Array:
            return kernel[which] if self.tied is None else kernel

        table = jnp.asarray(self.table)[which]
        seen = jnp.take_along_axis(contexts, jnp.maximum(table, 0), axis=-1)
        seen = jnp.where(table >= 0, seen, self.num_states)
        scale = jnp.asarray(self.scale, float)[None, None]
        known = scale * (seen < self.num_states)[:, None]
        z = jnp.repeat(scale, self._inputs_of_a_place, axis=-1) * self._values(seen)
        if self.equivariant:
            z = z - known / self.num_states

        def signed(kernel: jax.Array) -> jax.Array:
            found = times(z, kernel)
            return jnp.concatenate([-found, found], axis=1) if self.odd else found

        pre = signed(self.first)
        if self.known is not None:
            pre = pre + times(known, self.known)
        h = nn.silu(pre + bias(self.biases[0]))
        for kernel, mean, offset in zip(self.kernels, self.means, self.biases[1:], strict=True):
            new = times(h, kernel) + bias(offset)
            if mean is not None:
                new = new + times(jnp.mean(h, axis=1, keepdims=True), mean)
            h = h + nn.silu(new)
        found = times(h, self.head) + signed(self.skip)
        if self.odd:
            return found[..., 0]
        return self._logits(found if self.offset is None else found + bias(self.offset))


def _places(sites: int, tied: Any) -> tuple[np.ndarray, np.ndarray]:
    """The site at each place that a row sees, `[sites, places]`, `-1` where there is none, and weights `[places]`."""
    if tied is None:
        table = np.broadcast_to(np.arange(sites), (sites, sites))
        return np.where(np.eye(sites, dtype=bool), -1, table), np.ones(sites)
    if tied.pair.shape != (sites, sites) or np.any(tied.row != tied.row[0]):
        raise ValueError(
            f"tied: expected {sites} rows of one kind, got {len(tied.row)} of {len(set(tied.row))}"
        )
    row, site = np.nonzero(tied.weight)
    kinds, kind = np.unique(tied.pair[row, site], return_inverse=True)
    table = np.full((sites, len(kinds)), -1)
    table[row, kind] = site
    if np.sum(table >= 0) != len(row):
        raise ValueError("tied: a row sees two places of one kind")
    weight = np.zeros(len(kinds))
    weight[kind] = tied.weight[row, site]
    return table, weight
