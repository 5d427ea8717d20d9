"""Two pitfalls of published code, measured: a proposal that collapses, and a prior that does not match.

    python -m benchmarks.micro.pitfalls [--num-repeats 300] [--num-samples 2000]

Bootstrapped estimates on the masked path: independent spins in a field of .5, exact psi, `r = t + .01`. The small-step
proposal is the reverse of the noising kernel, `q(x_r | x_t) ~ p_{t|r}(x_t | x_r)`; the reference posterior is the
exact bridge of a flat target. Prior: the exact flow and jumps of the Gaussian-Bernoulli RBM, started from
`N(0, sigma_0^2)` as published, and from the true marginal at `t=0`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from egmjax import metrics
from egmjax.estimators import SNISEstimate, snis
from egmjax.paths import GaussianPath, MaskedPath, VarianceExploding
from egmjax.processes import FlowProcess, MaskedProcess, ProductProcess
from egmjax.proposals import Proposal, reference_posterior
from egmjax.simulators import grid_sampler, time_grid
from egmjax.targets import GaussianBernoulliRBM

STEP, FIELD, SITES = 0.01, 0.5, 100


@dataclass(kw_only=True)
class PitfallOptions:
    """Options of the measurement."""

    num_repeats: int = 300
    """States and estimates for each line of the first table."""
    num_proposals: int = 1_000
    """K."""
    num_samples: int = 2_000
    """Samples for each line of the second table."""
    num_steps: int = 500
    """Steps of its sampler."""


def main() -> None:
    """Prints both tables."""
    options = tyro.cli(PitfallOptions, prog="python -m benchmarks.micro.pitfalls")
    print(f"{SITES} independent spins in a field of {FIELD}, K = {options.num_proposals}, r = t + {STEP}")
    print(f"{'t':>5}  {'proposal':<22}{'bias':>10}{'stderr':>9}{'RMSE':>9}{'ESS':>8}")
    for t in (0.02, 0.1, 0.3, 0.5):
        for name in PROPOSALS:
            row = bootstrap_errors(name, t, options.num_repeats, options.num_proposals)
            print(f"{t:>5}  {name:<22}{row[0]:>10.4f}{row[1]:>9.4f}{row[2]:>9.3f}{row[3]:>8.1f}")
    print(f"\nGaussian-Bernoulli RBM, exact generator, {options.num_samples} samples")
    print(f"{'sigma_max':>9}  {'start':<14}{'x-W2':>8}{'energy-W1':>11}{'mode (0,0)':>12}")
    for sigma_max in (2.0, 5.0, 10.0, 20.0, 40.0):
        for start in ("N(0, sigma^2)", "exact"):
            w2, w1, mass = prior_errors(sigma_max, start == "exact", options.num_samples, options.num_steps)
            print(f"{sigma_max:>9}  {start:<14}{w2:>8.2f}{w1:>11.3f}{mass:>12.3f}")


# -- the proposal --------------------------------------------------------------------------------------------


def small_step(path: MaskedPath) -> Proposal:
    """`q(x_r | x_t) ~ p_{t|r}(x_t | x_r)` for `r < 1`: a mask stays with probability `1 / (1 + S (1 - rho))`."""

    def propose(key: jax.Array, xt: Any, t: Any, r: Any, num: int) -> tuple[Any, jax.Array]:
        rho = path.kappa(t) / path.kappa(r)
        stays = 1.0 / (1.0 + path.num_states * (1.0 - rho))
        key_stay, key_symbol = jax.random.split(key)
        shape = (num, path.sites)
        stay = jax.random.uniform(key_stay, shape) < stays[None, :]
        symbols = jax.random.randint(key_symbol, shape, 0, path.num_states)
        xr = jnp.where((xt == path.mask)[None, :] & ~stay, symbols, xt[None, :])
        was, stayed = (xt == path.mask)[None, :], xr == path.mask
        each = jnp.where(stayed, jnp.log(stays)[None, :], jnp.log((1.0 - stays) / path.num_states)[None, :])
        log_q = jnp.sum(jnp.where(was, each, 0.0), axis=-1)
        log_p = jax.vmap(lambda x: path.propose_log_prob(x, xt, t, r))(xr)
        return xr, log_p - log_q

    return Proposal(propose)


PROPOSALS = {
    "small step": (small_step, True),
    "reference posterior": (reference_posterior, True),
    "r = 1": (reference_posterior, False),
}


def bootstrap_errors(
    name: str, t: float, num_repeats: int, num_proposals: int
) -> tuple[float, float, float, float]:
    """Bias of the estimated P(x_1[i] = 1) at masked sites, its standard error, RMSE and mean ESS."""
    path = MaskedPath(sites=SITES)
    process = MaskedProcess(path)
    build, bootstrap = PROPOSALS[name]

    def psi_fn(x: jax.Array, r: Any) -> jax.Array:
        spin = jnp.where(x == path.mask, 0.0, 2.0 * x - 1.0)
        return jnp.sum(jnp.where(x == path.mask, math.log(math.cosh(FIELD)), FIELD * spin))

    exact = 1.0 / (1.0 + math.exp(-2.0 * FIELD))

    def once(key: jax.Array) -> tuple[jax.Array, jax.Array, SNISEstimate]:
        key_1, key_t, key_snis = jax.random.split(key, 3)
        x1 = jax.random.bernoulli(key_1, exact, (SITES,)).astype(jnp.int32)
        xt = path.sample(key_t, x1, t)
        estimate = snis(
            key_snis,
            xt,
            t,
            t + STEP if bootstrap else 1.0,
            process=process,
            proposal=build(path),
            psi_fn=psi_fn,
            num_proposals=num_proposals,
        )
        hidden = xt == path.mask
        error = jnp.where(hidden, estimate.target[:, 1] - exact, 0.0)
        return jnp.sum(error) / jnp.sum(hidden), jnp.sum(error**2) / jnp.sum(hidden), estimate

    keys = jax.random.split(jax.random.key(0), num_repeats)
    run = jax.jit(lambda k: jax.lax.map(once, k, batch_size=20))
    bias, square, estimate = run(keys)
    bias = np.asarray(bias, np.float64)
    return (
        float(bias.mean()),
        float(bias.std() / math.sqrt(num_repeats)),
        float(np.sqrt(np.mean(square))),
        float(np.mean(estimate.info.ess)),
    )


# -- the prior ------------------------------------------------------------------------------------------------


def exact_generator(target: GaussianBernoulliRBM, path: GaussianPath) -> Any:
    """The exact prediction for the RBM: posterior over hidden patterns that fit what is revealed."""
    num_hidden = np.shape(target.weights)[1]
    patterns = np.indices((2,) * num_hidden).reshape(num_hidden, -1).T
    centres = jnp.asarray(patterns @ np.asarray(target.weights).T, dtype=float)
    log_mass = jnp.asarray(np.log(np.maximum(target.mode_weights, 1e-300)), dtype=float)
    states = jnp.asarray(patterns)

    def predict(xt: Any, t: Any) -> Any:
        v, h = xt
        _, sigma = path.coefficients(t)
        variance = 1.0 + sigma**2
        away = v[None, :] - centres
        fits = jnp.all((h[None] == 2) | (h[None] == states), axis=-1)
        logits = jnp.where(fits, log_mass - 0.5 * jnp.sum(away**2, axis=-1) / variance, -jnp.inf)
        belief = jax.nn.softmax(logits)
        endpoint = belief @ (centres + away / variance)
        reference = path.endpoint_belief(v, t)
        scale = jnp.where(reference.scale > 0, reference.scale, 1.0)
        residual = jnp.where(sigma > 0, (endpoint - reference.mean) / scale, 0.0)
        one_hot = (states[:, :, None] == jnp.arange(2)[None, None]).astype(float)
        return residual, jnp.log(jnp.einsum("k,kis->is", belief, one_hot) + 1e-30)

    return predict


def prior_errors(
    sigma_max: float, from_exact: bool, num_samples: int, num_steps: int
) -> tuple[float, float, float]:
    """x-W2, energy-W1 and the mass of mode (0, 0) of unweighted samples of the exact generator."""
    target = GaussianBernoulliRBM.six_modes()
    path = GaussianPath(VarianceExploding(0.01, sigma_max), mean=0.0, scale=5.0, shape=(2,))
    process = ProductProcess((FlowProcess(path), MaskedProcess(MaskedPath(sites=3))))
    sampler, predict_fn = grid_sampler(process, time_grid(num_steps)), exact_generator(target, path)
    _, sigma = path.coefficients(0.0)
    key_data, key_noise, key_run, key_reference = jax.random.split(jax.random.key(0), 4)
    v0 = sigma * jax.random.normal(key_noise, (num_samples, 2))
    if from_exact:
        v0 = v0 + target.sample(key_data, num_samples)[0]
    masks = jnp.full((num_samples, 3), 2, dtype=jnp.int32)
    run = jax.jit(jax.vmap(lambda k, v, h: sampler.sample(k, predict_fn, (v, h)).x))
    x = run(jax.random.split(key_run, num_samples), v0, masks)
    reference = target.sample(key_reference, num_samples)
    energy = jax.vmap(target.energy)
    mode = np.asarray(jax.vmap(target.mode_index)(x))
    return (
        metrics.wasserstein2(np.asarray(x[0], np.float64), np.asarray(reference[0], np.float64)),
        metrics.wasserstein1(np.asarray(energy(x), np.float64), np.asarray(energy(reference), np.float64)),
        float(np.mean(mode == 0)),
    )


if __name__ == "__main__":
    main()
