"""Markov chains that a learned sampler is held against for as long as it took: effective samples a second.

    swendsen-wang         clusters, for the ferromagnetic Ising torus without a field
    tempering             replica exchange of Gibbs sweeps, of Langevin steps, or of both in turn
    thrml                 block Gibbs sampling by the package of that name, for the Ising torus
    nuts                  blackjax's no-U-turn sampler with its window adaptation, for reals
    mixed-hmc             numpyro's MixedHMC, for reals and symbols
    discrete-hmc-gibbs    numpyro's DiscreteHMCGibbs about its NUTS, for reals and symbols

Sweeps over a lattice update all sites of a colour at once, a colour being sites that do not depend on each other.
Every rival runs many chains side by side in one compiled program, which is how it makes most samples a second on few
cores. Compilation counts as time spent, and so does the adaptation of the last three, each chain for itself with the
defaults of its package; the first fifth of every chain is burn-in, and counts too. Chains run for at most
`MAX_CPU_SECONDS`: a rate is known by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from egmjax.mcmc import parallel_tempering, refreshing_moves, swendsen_wang
from egmjax.states import Categorical, Real, example_state
from egmjax.targets import Ising, Target, coloring, dependence

from .chain_report import summarize_series

NUM_CHAINS = 64
BLOCK = 100  # steps of a call of the compiled program
BURN_IN = 0.2
NUM_ADAPT = 500  # steps in which Hamiltonian kernels find their step size and mass matrix
MAX_CPU_SECONDS = 10.0
LATTICE_SCALES = np.linspace(1.0, 0.5, 6)
REAL_SCALES = np.geomspace(1.0, 0.03, 8)


class Rival(NamedTuple):
    """`init(key) -> states` of all chains, and `block(key, states) -> (states, x)`, `x [NUM_CHAINS, BLOCK, ...]`."""

    init: Callable[[jax.Array], Any]
    block: Callable[[jax.Array, Any], tuple[Any, Any]]


def run_rival(
    make: Callable[[Target, float], Rival],
    target: Target,
    key: jax.Array,
    seconds: float,
    *,
    step_size: float = 0.1,
    max_cpu_seconds: float = MAX_CPU_SECONDS,
) -> dict[str, Any]:
    """Runs `make(target, step_size)` and reports what it does in `seconds` of wall-clock time.

    Of the energy and of each observable what `summarize_series` says, and with `c` the seconds of compilation and of
    `init`, where kernels adapt,

        ess_per_second = (ESS / seconds of the chains) (1 - c / seconds),

    `ess_per_cpu_second` the same with CPU seconds of all cores in the first factor, which other work on the machine
    does not lengthen. Chains run for what is left of `seconds` or `max_cpu_seconds`, ten blocks at least.
    """
    started = time.perf_counter()
    rival = make(target, step_size)
    key_start, key = jax.random.split(key)
    functions = {"energy": target.energy, **target.observables}

    @jax.jit
    def block(key: jax.Array, states: Any) -> tuple[Any, dict[str, jax.Array]]:
        states, x = rival.block(key, states)
        return states, {name: jax.vmap(jax.vmap(fn))(x) for name, fn in functions.items()}

    states = jax.block_until_ready(jax.jit(rival.init)(key_start))
    compiled = block.lower(key, states).compile()
    compile_seconds = time.perf_counter() - started
    started, cpu_started, cpu = time.perf_counter(), time.process_time(), 0.0
    left = seconds - compile_seconds
    found: list[dict[str, np.ndarray]] = []
    while len(found) < 10 or (time.perf_counter() - started < left and cpu < max_cpu_seconds):
        states, values = compiled(jax.random.fold_in(key, len(found)), states)
        found.append(jax.device_get(values))
        cpu = time.process_time() - cpu_started
    spent = time.perf_counter() - started

    kept = found[int(BURN_IN * len(found)) :]
    series = {name: np.concatenate([part[name] for part in kept], axis=1) for name in functions}
    observables = {name: summarize_series(values) for name, values in series.items()}
    share = max(left, 0.0) / seconds
    for entry in observables.values():
        entry["ess_per_second"] = share * entry["ess"] / spent
        entry["ess_per_cpu_second"] = share * entry["ess"] / cpu
    mean = target.mean_energy
    if mean is not None:
        energy = observables["energy"]
        energy["score"] = (energy["mean"] - mean) / energy["stderr"]
    return {
        "observables": observables,
        "steps": len(found) * BLOCK,
        "num_chains": NUM_CHAINS,
        "compile_seconds": compile_seconds,
        "equal_seconds": seconds,
        "wall_seconds": spent,
        "cpu_seconds": cpu,
    }


def swendsen_wang_rival(target: Target, step_size: float) -> Rival:
    """`NUM_CHAINS` chains from random spins."""
    assert isinstance(target, Ising)
    kernel = swendsen_wang(length=target.length, coupling=target.beta * target.coupling)
    return _scanned(
        lambda key: kernel.init(_random_state(key, target)),
        lambda key, state: kernel.step(key, state)[0],
        lambda state: state.position,
    )


def tempering_rival(target: Target, step_size: float) -> Rival:
    """`NUM_CHAINS` ladders; the state at the target's temperature is read. Langevin steps grow with temperature."""
    if isinstance(target.space, Categorical):
        move, scales = coloured_sweep(target), LATTICE_SCALES
    else:
        scales = REAL_SCALES

        def move(key: jax.Array, x: Any, b: jax.Array) -> Any:
            refresh = refreshing_moves(target.space, num_steps=1, step_size=step_size / b)
            return refresh(key, x, lambda y: -b * target.energy(y))

    kernel = parallel_tempering(target.energy, move, scales)
    return _scanned(
        lambda key: kernel.init(_random_state(key, target)),
        lambda key, state: kernel.step(key, state)[0],
        lambda state: jax.tree.map(lambda a: a[0], state.position),
    )


def thrml_rival(target: Target, step_size: float) -> Rival:
    """`NUM_CHAINS` chains of thrml's own block Gibbs program, its states read after each sweep.

    Raises `ImportError` where the package is missing.
    """
    from thrml import Block, SamplingSchedule, SpinNode, sample_states
    from thrml.models import IsingEBM, IsingSamplingProgram

    assert isinstance(target, Ising)
    length = target.length
    nodes: list[Any] = [SpinNode() for _ in range(length**2)]
    sites = np.arange(length**2).reshape(length, length)
    pairs = [(a, b) for axis in (0, 1) for a, b in zip(sites.ravel(), np.roll(sites, -1, axis).ravel())]
    model = IsingEBM(
        nodes,
        [(nodes[a], nodes[b]) for a, b in pairs],
        jnp.full(length**2, float(target.field)),
        jnp.full(len(pairs), float(target.coupling)),
        jnp.asarray(float(target.beta)),
    )
    chosen = [np.flatnonzero(colour) for colour in colours(target)]
    program = IsingSamplingProgram(model, [Block([nodes[i] for i in part]) for part in chosen], [])
    schedule = SamplingSchedule(n_warmup=1, n_samples=BLOCK, steps_per_sample=1)
    everything = [Block(nodes)]

    def init(key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key, shape=(NUM_CHAINS, length**2))

    def block(key: jax.Array, states: jax.Array) -> tuple[jax.Array, jax.Array]:
        def chain(key: jax.Array, spins: jax.Array) -> jax.Array:
            start = [spins[part] for part in chosen]
            return sample_states(key, program, schedule, start, [], everything)[0]

        x = jax.vmap(chain)(jax.random.split(key, NUM_CHAINS), states)
        return x[:, -1], x.astype(jnp.int32)

    return Rival(init, block)


def nuts_rival(target: Target, step_size: float) -> Rival:
    """`NUM_CHAINS` chains of blackjax's NUTS, each with a step size and diagonal mass matrix of its own."""
    from blackjax import nuts, window_adaptation

    def log_density(x: jax.Array) -> jax.Array:
        return -target.energy(x)

    kernel = nuts.build_kernel()

    def init(key: jax.Array) -> tuple[Any, Any]:
        key_start, key_adapt = jax.random.split(key)
        adaptation: Any = window_adaptation(nuts, log_density)
        (state, parameters), _ = adaptation.run(key_adapt, _random_state(key_start, target), NUM_ADAPT)
        return state, parameters

    def step(key: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, parameters = carry
        return kernel(key, state, log_density, **parameters)[0], parameters

    return _scanned(init, step, lambda carry: carry[0].position)


def mixed_hmc_rival(target: Target, step_size: float) -> Rival:
    """`NUM_CHAINS` chains of numpyro's MixedHMC. Raises `ImportError` where the package is missing."""
    from numpyro.infer import HMC, MixedHMC, init_to_sample

    return _numpyro_rival(target, lambda model: MixedHMC(HMC(model, init_strategy=init_to_sample)))


def discrete_hmc_gibbs_rival(target: Target, step_size: float) -> Rival:
    """`NUM_CHAINS` chains of numpyro's DiscreteHMCGibbs, whose symbols move by a Metropolised Gibbs sweep.

    Raises `ImportError` where the package is missing.
    """
    from numpyro.infer import NUTS, DiscreteHMCGibbs, init_to_sample

    return _numpyro_rival(
        target, lambda model: DiscreteHMCGibbs(NUTS(model, init_strategy=init_to_sample), modified=True)
    )


def _numpyro_rival(target: Target, make: Callable[[Callable[[], None]], Any]) -> Rival:
    """Chains of a kernel for a model whose prior cancels: a Gaussian and uniform symbols to start from."""
    import numpyro
    from numpyro import distributions as dist

    assert isinstance(target.space, tuple)
    first_is_real = isinstance(target.space[0], Real)
    real, symbols = target.space if first_is_real else target.space[::-1]
    assert isinstance(real, Real)
    assert isinstance(symbols, Categorical)

    def join(site_values: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        pair = site_values["x"], site_values["d"].astype(jnp.int32)
        return pair if first_is_real else pair[::-1]

    def model() -> None:
        x = numpyro.sample("x", dist.Normal().expand(real.shape).to_event())
        uniform = dist.Categorical(probs=jnp.full(symbols.num_states, 1.0 / symbols.num_states))
        d = numpyro.sample("d", uniform.expand((symbols.sites,)))
        numpyro.factor("energy", 0.5 * jnp.sum(x**2) - target.energy(join({"x": x, "d": d})))

    kernel = make(model)

    def step(state: Any) -> Any:
        with jax.numpy_rank_promotion("allow"):  # the package's own arithmetic
            return kernel.sample(state, (), {})

    def init(key: jax.Array) -> Any:
        with jax.numpy_rank_promotion("allow"):
            state = kernel.init(key, NUM_ADAPT, None, (), {})
        return jax.lax.fori_loop(0, NUM_ADAPT, lambda _, s: step(s), state)

    return _scanned(init, lambda key, state: step(state), lambda state: join(state.z))


def colours(target: Target) -> list[np.ndarray]:
    """Masks `[sites]` of sites that do not depend on each other, as few as a greedy search finds."""
    rank = coloring(dependence(target))
    return [rank == n for n in range(rank.max() + 1)]


def coloured_sweep(target: Target) -> Callable[[jax.Array, Any, jax.Array], Any]:
    """`(key, x, b) -> x`: each colour in turn from its exact law under `exp(-b energy)`; a `site_energies` a colour."""
    masks = jnp.asarray(np.stack(colours(target)))

    def sweep(key: jax.Array, x: jax.Array, b: jax.Array) -> jax.Array:
        def update(x: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            key_colour, mask = inputs
            symbols = jax.random.categorical(key_colour, -b * target.site_energies(x))
            return jnp.where(mask, symbols.astype(x.dtype), x), None

        return jax.lax.scan(update, x, (jax.random.split(key, len(masks)), masks))[0]

    return sweep


RIVALS: dict[str, Callable[[Target, float], Rival]] = {
    "swendsen-wang": swendsen_wang_rival,
    "tempering": tempering_rival,
    "thrml": thrml_rival,
    "nuts": nuts_rival,
    "mixed-hmc": mixed_hmc_rival,
    "discrete-hmc-gibbs": discrete_hmc_gibbs_rival,
}
OPTIONAL = ("thrml", "mixed-hmc", "discrete-hmc-gibbs")  # of packages of the extra `rivals`


def rivals_of(target: Target) -> tuple[str, ...]:
    """The names of those that apply."""
    if isinstance(target, Ising):
        is_ferromagnet = float(target.beta) * float(target.coupling) >= 0 and float(target.field) == 0
        return ("swendsen-wang", "tempering", "thrml") if is_ferromagnet else ("tempering", "thrml")
    if isinstance(target.space, Real):
        return ("tempering", "nuts")
    if isinstance(target.space, tuple):
        return ("tempering", "mixed-hmc", "discrete-hmc-gibbs")
    return ("tempering",)


def _scanned(
    init: Callable[[jax.Array], Any], step: Callable[[jax.Array, Any], Any], read: Callable[[Any], Any]
) -> Rival:
    """`NUM_CHAINS` chains of `step(key, state)` side by side."""

    def chain(key: jax.Array, state: Any) -> tuple[Any, Any]:
        def one(state: Any, key: jax.Array) -> tuple[Any, Any]:
            state = step(key, state)
            return state, read(state)

        return jax.lax.scan(one, state, jax.random.split(key, BLOCK))

    return Rival(
        lambda key: jax.vmap(init)(jax.random.split(key, NUM_CHAINS)),
        lambda key, states: jax.vmap(chain)(jax.random.split(key, NUM_CHAINS), states),
    )


def _random_state(key: jax.Array, target: Target) -> Any:
    """Symbols at random, reals from a standard Gaussian."""
    spaces = target.space if isinstance(target.space, tuple) else (target.space,)
    parts = []
    for part, space in zip(jax.random.split(key, len(spaces)), spaces):
        example = example_state(space)
        if isinstance(space, Categorical):
            parts.append(jax.random.randint(part, example.shape, 0, space.num_states))
        else:
            parts.append(jax.random.normal(part, example.shape))
    return tuple(parts) if isinstance(target.space, tuple) else parts[0]
