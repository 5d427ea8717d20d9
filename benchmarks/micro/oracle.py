"""How much does a step of finite length cost? Flows and jumps with an exact posterior, on the line.

    python -m benchmarks.micro.oracle [--num-samples 100000] [--steps 2 5 10 20 40] [--only jump] [--seed 0]

The target has three Gaussian peaks of unequal widths, the path is condot with a standard normal prior, times are
equally spaced. Endpoints are drawn from the exact posterior and velocities are exact, so what is left is the error of
the rule that turns a generator into steps. Printed: the distance W1 to the target by rule and number of steps, and in
the last row that of as many exact samples. A `superposition` halves both generators, a `mixture` of kernels takes a
full step of one of the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy.stats import norm

from egmjax.paths import (
    CondOT,
    GaussianPath,
    conditional_coupling,
    jump_coordinates,
    jump_rate,
    landing_ppf,
    survival,
)
from egmjax.targets import GaussianMixture

Step = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]  # (key, x [n], t, s) -> x at s
PATH = GaussianPath(CondOT(), shape=(1,))
TARGET = GaussianMixture.three_peaks()


@dataclass(kw_only=True)
class OracleOptions:
    """Options of the measurement."""

    num_samples: int = 100_000
    """Samples of each rule."""
    steps: tuple[int, ...] = (2, 5, 10, 20, 40)
    """Numbers of steps."""
    only: str = ""
    """Measure the rules whose name contains this."""
    seed: int = 0
    """Seed of the samples."""


def main() -> None:
    """Prints the table."""
    options = tyro.cli(OracleOptions, prog="python -m benchmarks.micro.oracle")
    print(f"W1 to the target, {options.num_samples} samples")
    print(f"{'rule':<34}" + "".join(f"{n:>8}" for n in options.steps) + f"{'s':>8}")
    for name, step in RULES.items():
        if options.only not in name:
            continue
        started = time.perf_counter()
        run = compile_rule(step, options.num_samples)
        found = [run(n, options.seed) for n in options.steps]
        row = "".join(f"{w:>8.3f}" for w in found)
        print(f"{name:<34}{row}{time.perf_counter() - started:>8.1f}", flush=True)
    floor = distance(TARGET.sample(jax.random.key(options.seed + 1), options.num_samples)[:, 0])
    print(f"{'exact samples':<34}{floor:>8.3f}")


def compile_rule(step: Step, num_samples: int) -> Callable[[int, int], float]:
    """`(num_steps, seed) -> W1`, one compiled program for every number of steps."""

    @jax.jit
    def run(key: jax.Array, num_steps: jax.Array) -> jax.Array:
        def advance(n: jax.Array, x: jax.Array) -> jax.Array:
            # exactly 1 at the end
            return step(jax.random.fold_in(key, n), x, n / num_steps, (n + 1) / num_steps)

        x = jax.random.normal(jax.random.fold_in(key, num_steps), (num_samples,))
        return jax.lax.fori_loop(0, num_steps, advance, x)

    return lambda num_steps, seed: distance(run(jax.random.key(seed), jnp.asarray(num_steps)))


def distance(x: jax.Array) -> float:
    """W1 between samples `[n]` and the target: sorted samples against quantiles."""
    means, scales, probs = np.asarray(TARGET.means)[:, 0], np.asarray(TARGET.scales), _probs()
    nodes = np.linspace(-4.0, 4.0, 80_001)
    cdf = sum(p * norm.cdf(nodes, m, s) for p, m, s in zip(probs, means, scales))
    levels = (np.arange(len(x)) + 0.5) / len(x)
    return float(np.mean(np.abs(np.sort(np.asarray(x, np.float64)) - np.interp(levels, cdf, nodes))))


def velocity(x: jax.Array, t: jax.Array) -> jax.Array:
    """`E[x_1 - x_0 | x_t]`, finite at both ends."""
    share, means, variances, total = _beliefs(x, t)
    slope = (t * variances - (1.0 - t)) / total
    return jnp.sum(share * (means + slope * (x[:, None] - t * means)), axis=-1)


def draw_endpoint(key: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
    """A draw of `x_1` given `x_t`."""
    key_which, key_noise = jax.random.split(key)
    share, means, variances, total = _beliefs(x, t)
    which = jax.random.categorical(key_which, jnp.log(share))[:, None]
    centre = means + t * variances / total * (x[:, None] - t * means)
    spread = jnp.broadcast_to((1.0 - t) * jnp.sqrt(variances / total), centre.shape)
    centre, spread = (jnp.take_along_axis(a, which, axis=1)[:, 0] for a in (centre, spread))
    return centre + spread * jax.random.normal(key_noise, x.shape)


def flow_step(order: int, share: float = 1.0) -> Step:
    """Euler's (1) or Heun's (2) step of the flow, of which `share` is taken; the last one is Euler's."""

    def step(key: jax.Array, x: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
        h, slope = s - t, velocity(x, t)
        if order == 1:
            return x + share * h * slope
        mean = 0.5 * (slope + velocity(x + h * slope, s))
        return x + share * h * jnp.where(s < 1, mean, slope)

    return step


def jump_step(rule: str, share: float = 1.0, otherwise: Step = lambda key, x, t, s: x) -> Step:
    """A jump of `share` times the process, by a rule of `paths.survival` and landing as at `t`, or `otherwise`.

    The corrected rule forces a jump at the last step, whatever the rate, and it lands at the endpoint.
    """

    def step(key: jax.Array, x: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 4)
        z = draw_endpoint(keys[0], x, t)
        e, r, _ = jump_coordinates(PATH, x, z, t)
        stay = survival(share * jump_rate(e, r), PATH, t, s, rule)  # type: ignore[arg-type]
        if rule == "corrected":
            stay = jnp.where(s < 1, stay, 0.0)
        alpha, sigma = PATH.coefficients(t)
        land = alpha * z + sigma * landing_ppf(jax.random.uniform(keys[1], x.shape), r)
        if rule == "corrected":
            land = jnp.where(s < 1, land, z)
        return jnp.where(jax.random.uniform(keys[2], x.shape) < stay, otherwise(keys[3], x, t, s), land)

    return step


def coupled_step(is_exact: bool) -> Step:
    """Stays by the ratio of densities; lands by the maximal coupling, or by the law of `e` mapped to `s`."""

    def step(key: jax.Array, x: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 3)
        z = draw_endpoint(keys[0], x, t)
        inner = jnp.where(s < 1, s, 0.5 * (1.0 + t))
        coupling, u = conditional_coupling(PATH, z, t, inner), jax.random.uniform(keys[1], x.shape)
        if is_exact:
            land = coupling.landing_ppf(u)
        else:
            land = coupling.mean_s + coupling.std_s * landing_ppf(u, jump_coordinates(PATH, x, z, t).r)
        moved = jnp.where(jax.random.uniform(keys[2], x.shape) < coupling.stay_prob(x), x, land)
        return jnp.where(s < 1, moved, z)

    return step


def mixture_step(first: Step, second: Step) -> Step:
    """Each sample takes a full step of one of the two, with equal probability."""

    def step(key: jax.Array, x: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 3)
        takes_first = jax.random.bernoulli(keys[0], 0.5, x.shape)
        return jnp.where(takes_first, first(keys[1], x, t, s), second(keys[2], x, t, s))

    return step


def _probs() -> np.ndarray:
    return np.exp(TARGET.log_weights) * np.asarray(TARGET.scales) * np.sqrt(2.0 * np.pi)


def _beliefs(x: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Posterior of the peak `[n, 3]`, then means, variances and variances at `t` of the peaks, `[1, 3]`."""
    means, variances = (jnp.asarray(a, dtype=float)[None, :] for a in (TARGET.means[:, 0], TARGET.scales**2))
    total = t**2 * variances + (1.0 - t) ** 2
    log_probs = jnp.log(jnp.asarray(_probs(), dtype=float))[None, :]
    logits = log_probs - 0.5 * ((x[:, None] - t * means) ** 2 / total + jnp.log(total))
    return jax.nn.softmax(logits, axis=-1), means, variances, total


RULES: dict[str, Step] = {
    "flow, Euler": flow_step(1),
    "flow, Heun": flow_step(2),
    "jump, exp(-h rate)": jump_step("exp"),
    "jump, corrected survival": jump_step("corrected"),
    "jump, density ratio": coupled_step(is_exact=False),
    "jump, maximal coupling": coupled_step(is_exact=True),
    "superposition, corrected, Euler": jump_step("corrected", 0.5, flow_step(1, 0.5)),
    "superposition, corrected, Heun": jump_step("corrected", 0.5, flow_step(2, 0.5)),
    "mixture, maximal coupling, Heun": mixture_step(coupled_step(is_exact=True), flow_step(2)),
}


if __name__ == "__main__":
    main()
