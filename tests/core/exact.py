"""Exact references, written in numpy float64 and independent of the library: enumeration and mixtures."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp


def grid(num_symbols, sites):
    """All states `[num_symbols^sites, sites]`, int32, the last site running fastest."""
    return np.array(list(itertools.product(range(num_symbols), repeat=sites)), dtype=np.int32)


def number(x, num_symbols):
    """The row of `grid` that `x` is."""
    row = x[..., 0]
    for i in range(1, x.shape[-1]):
        row = row * num_symbols + x[..., i]
    return row


class Table:
    """A random energy on `num_states^sites` states, or given `energies`, and all that follows by enumeration.

    Under a mask (symbol `num_states`): `psi [N]` is the log-mean of `exp(-E)` over completions, `denoiser
    [N, sites, num_states]` the posterior of every site, `marginal(kappa)` the law of `x_t`.
    """

    def __init__(self, num_states, sites, seed=0, spread=1.0, energies=None):
        self.num_states, self.sites = num_states, sites
        self.x1, self.xt = grid(num_states, sites), grid(num_states + 1, sites)
        if energies is None:
            energies = spread * np.random.default_rng(seed).normal(size=len(self.x1)) - 0.7
        self.energies = energies
        self.log_z = float(logsumexp(-self.energies))
        self.p1 = np.exp(-self.energies - self.log_z)
        hidden = self.xt[:, None] == num_states
        self.compatible = np.all(hidden | (self.xt[:, None] == self.x1[None]), axis=-1).astype(float)
        mass = self.compatible @ np.exp(-self.energies)
        self.psi = np.log(mass / self.compatible.sum(1))
        self.posterior = self.compatible * np.exp(-self.energies) / mass[:, None]
        one_hot = (self.x1[:, :, None] == np.arange(num_states)).astype(float)
        self.denoiser = np.einsum("xk,kis->xis", self.posterior, one_hot)

    def marginal(self, kappa):
        """The law of `x_t` over `xt`, `kappa [sites]`."""
        factors = np.where(self.xt == self.num_states, 1 - kappa, kappa).prod(-1)
        return factors * (self.compatible @ self.p1)

    def energy(self, x):
        return jnp.asarray(self.energies, dtype=float)[number(x, self.num_states)]

    def psi_fn(self, x, r=1.0):
        return jnp.asarray(self.psi, dtype=float)[number(x, self.num_states + 1)]

    def predict(self, x, t):
        """The exact denoiser as logits."""
        probs = jnp.asarray(np.maximum(self.denoiser, 1e-30), dtype=float)
        return jnp.log(probs)[number(x, self.num_states + 1)]

    def sample(self, seed, num):
        rng = np.random.default_rng(seed)
        return jnp.asarray(self.x1[rng.choice(len(self.x1), size=num, p=self.p1)])


class Mixture:
    """A mixture of isotropic Gaussians: `means [K, dim]`, `scales [K]`, `weights [K]`; `exp(-E)` integrates to Z."""

    def __init__(self, means, scales, weights, log_z=0.0):
        self.means, self.scales = np.asarray(means, float), np.asarray(scales, float)
        self.weights, self.log_z = np.asarray(weights, float), log_z

    def noised(self, alpha, sigma):
        """The law of `alpha x_1 + sigma eps`."""
        return Mixture(alpha * self.means, np.sqrt((alpha * self.scales) ** 2 + sigma**2), self.weights)

    def components(self, x):
        """Log of weight times density for each component, `[K]`, for one state `[dim]`; numpy or jax."""
        xp = jnp if isinstance(x, jax.Array) else np
        means, scales = xp.asarray(self.means, dtype=float), xp.asarray(self.scales, dtype=float)
        squares = ((x[..., None, :] - means.reshape((1,) * (x.ndim - 1) + means.shape)) ** 2).sum(-1)
        lift = (1,) * (x.ndim - 1) + (-1,)
        norm = xp.log(xp.asarray(self.weights, dtype=float)) - self.means.shape[1] * xp.log(
            scales * np.sqrt(2 * np.pi)
        )
        return norm.reshape(lift) - 0.5 * squares / (scales**2).reshape(lift)

    def pdf(self, x):
        return np.exp(logsumexp(self.components(np.asarray(x, float)), axis=-1))

    def energy(self, x):
        return -jax.nn.logsumexp(self.components(x)) - self.log_z

    def endpoint(self, x, alpha, sigma):
        """`E[x_1 | x_t = x]` for one state; jax."""
        means, scales = jnp.asarray(self.means, dtype=float), jnp.asarray(self.scales, dtype=float)
        variance = (alpha * scales) ** 2 + sigma**2
        away = x[None, :] - alpha * means
        logits = jnp.log(jnp.asarray(self.weights, dtype=float)) - 0.5 * means.shape[1] * jnp.log(variance)
        belief = jax.nn.softmax(logits - 0.5 * jnp.sum(away**2, axis=-1) / variance)
        each = means + (alpha * scales**2 / variance)[:, None] * away
        return belief @ each

    def residual(self, path):
        """The exact prediction of a flow along `path`, in its units."""

        def predict(x, t):
            alpha, sigma = path.coefficients(t)
            belief = path.endpoint_belief(x, t)
            # nothing is left to predict at t=1
            scale = jnp.where(belief.scale > 0, belief.scale, 1.0)
            return jnp.where(sigma > 0, (self.endpoint(x, alpha, sigma) - belief.mean) / scale, 0.0)

        return predict

    def sample(self, seed, num):
        rng = np.random.default_rng(seed)
        which = rng.choice(len(self.weights), size=num, p=self.weights)
        noise = rng.normal(size=(num, self.means.shape[1]))
        return jnp.asarray(self.means[which] + self.scales[which, None] * noise, dtype=float)


def slope(fn, t, h=1e-3):
    """`d fn / dt` by the five-point rule, error O(h^4)."""
    return (8 * (fn(t + h) - fn(t - h)) - (fn(t + 2 * h) - fn(t - 2 * h))) / (12 * h)
