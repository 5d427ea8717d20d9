"""What a target is: an energy, its state space, and whatever is known about it exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._pytree import frozen_pytree
from ..states import Categorical, Space


@frozen_pytree
class Target:
    """A density proportional to `exp(-energy(x))` on a state space, with its exact knowledge.

    A subclass is a frozen pytree and overrides what it knows; everything left alone is honestly unknown
    (`None`). Exact values are float64 numbers computed on the host, so they do not depend on
    `jax_enable_x64`.
    """

    @property
    def space(self) -> Space:
        """The state space."""
        raise NotImplementedError

    def energy(self, x: Any) -> jax.Array:
        """`E(x)`, a scalar, for one state."""
        raise NotImplementedError

    @property
    def log_z(self) -> float | None:
        """Exact `log Z`, `Z` the sum or integral of `exp(-energy)`; `None` where unknown."""
        return None

    @property
    def mean_energy(self) -> float | None:
        """Exact mean of `energy` under the target; `None` where unknown."""
        return None

    @property
    def energy_std(self) -> float | None:
        """Exact standard deviation of `energy` under the target; `None` where unknown."""
        return None

    def sample(self, key: jax.Array, num_samples: int) -> Any:
        """`num_samples` independent exact draws (leading axis), or `None` where no exact sampler is known."""
        return None

    @property
    def observables(self) -> Mapping[str, Callable[[Any], jax.Array]]:
        """Named scalar functions of one state worth comparing with the truth, besides the energy."""
        return {}

    @property
    def mode_weights(self) -> Any:
        """Exact probabilities `[num_modes]` of the cells of `mode_index`, float64; `None` where unknown."""
        return None

    def mode_index(self, x: Any) -> jax.Array:
        """The cell of the mode partition that `x` lies in, an integer scalar; see `mode_weights`."""
        raise NotImplementedError

    def site_energies(self, x: Any) -> jax.Array:
        """`E(x[i <- s])` for every site and symbol of a categorical state, `[sites, num_states]`.

        Up to a constant for each site, so `softmax(-site_energies, -1)` is the law of site `i` given the others.
        For a tuple with one categorical component, of that component. Costs `sites * num_states` energies here;
        a target overrides it where differences of energy are cheaper. Raises `ValueError` where no component, or
        more than one, is categorical.
        """
        parts, spaces = (x, self.space) if isinstance(self.space, tuple) else ((x,), (self.space,))
        which = [i for i, space in enumerate(spaces) if isinstance(space, Categorical)]
        if len(which) != 1:
            raise ValueError(f"x: site energies need exactly one categorical component, got {self.space}")
        index, space = which[0], spaces[which[0]]
        assert isinstance(space, Categorical)

        def changed(site: jax.Array, symbol: jax.Array) -> jax.Array:
            new = parts[index].at[site].set(symbol.astype(parts[index].dtype))
            return self.energy(
                (*parts[:index], new, *parts[index + 1 :]) if isinstance(self.space, tuple) else new
            )

        over_symbols = jax.vmap(changed, in_axes=(None, 0))
        return jax.vmap(over_symbols, in_axes=(0, None))(
            jnp.arange(space.sites), jnp.arange(space.num_states)
        )

    @property
    def multispin_energy(self) -> Callable[[jax.Array], jax.Array] | None:
        """`energy` of 32 two-valued states at once, `words uint32 [sites, n] -> [32, n]`; `None` where there is none.

        See `egmjax.multispin`.
        """
        return None

    @property
    def site_symmetries(self) -> np.ndarray | None:
        """Different permutations `p` of the sites with `E(x[p]) = E(x)` for every `x`, int `[m, sites]`.

        The identity comes first. `None` where no other is known. See `simulators.symmetrized`.
        """
        return None

    @property
    def num_particles(self) -> int | None:
        """Particles whose mean-free coordinates (`mean_free_basis`) the real part of a state is, alike but for types.

        The energy is then unchanged when particles are permuted, with their types, and turned or mirrored together.
        `None` where there are none.
        """
        return None

    @property
    def symmetric_under_flip(self) -> bool:
        """Whether `energy` is unchanged when every two-valued site is flipped."""
        return False

    @property
    def symmetric_under_relabelling(self) -> bool:
        """Whether `energy` is unchanged when the symbols of all sites are permuted alike."""
        return (
            isinstance(self.space, Categorical) and self.space.num_states == 2 and self.symmetric_under_flip
        )
