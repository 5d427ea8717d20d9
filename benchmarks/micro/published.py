"""The published EGM training step and sampler, beside a plain PyTorch script of the same networks, in one run.

    python -m benchmarks.micro.published [--num-states 300] [--num-proposals 1000] [--length 10]

Needs the extra `peers` for PyTorch; without it those rows say so. Steps include the batch from the buffer, noise, the
estimate, the gradient and Adam. "naive": self-normalised targets from the energy. "bootstrapped": the energy network
is fitted to the log-mean of `exp(-E)`, and targets come from `x_r` at `r = min(t + .01, 1)` weighted by it.
"Rao-Blackwellised": the same fit, and targets from the energy network at all one-site changes of `x_t`. Sampling: 2,000
states in 100 steps of the denoiser, log-weights included in ours. Ratios are ours to PyTorch's: below one is faster.
Peak memory is that of a fresh process each, less what it had after its imports, and that of a step alone. Of ours it is
also that of a process which finds its programs in the cache, as those of commands do from the second on. RMSE is that
of the targets alone where all is known: independent spins in a field of .5, exact `psi`, `t = .5`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from egmjax.estimators import psi_from_energy, snis
from egmjax.paths import MaskedPath
from egmjax.processes import MaskedProcess
from egmjax.proposals import reference_posterior
from egmjax.simulators import first_hitting_sampler
from egmjax.targets import Ising
from egmjax.training import (
    Context,
    Objective,
    data_source,
    from_psi_objective,
    make_trainer,
    multispin_objective,
    psi_objective,
    snis_objective,
    sum_objectives,
)

from ..commands import use_compilation_cache
from ..records import Record
from ._harness import (
    BenchOptions,
    Case,
    Peak,
    Timing,
    compile_case,
    parse,
    peak_in_child,
    peak_of,
    report,
    time_in_turn,
)

STEP, FIELD = 0.01, 0.5
CHUNK = 40  # 300 states of 40 proposals at a width of 256 stay in the cache
OURS = ("naive step", "bootstrapped step", "Rao-Blackwellised step", "sampling")
FROM_CACHE = "process from the cache, MiB"
PEERS = {name: f"{name}, PyTorch" for name in ("naive step", "bootstrapped step", "sampling")}
BASELINES = {
    **{name: PEERS[name] for name in PEERS},
    "Rao-Blackwellised step": PEERS["bootstrapped step"],
}


@dataclass(kw_only=True)
class PublishedOptions(BenchOptions):
    """Options of the measurement; defaults are the published sizes."""

    repeats: int = 5
    """Rounds; in each of them every case is run, for a tenth of a second or once."""
    length: int = 10
    """Side of the Ising torus."""
    beta: float = 0.4407
    """Inverse temperature."""
    num_states: int = 300
    """States x_t in a batch."""
    num_proposals: int = 1_000
    """K."""
    num_samples: int = 2_000
    """States sampled."""
    num_steps: int = 100
    """Steps of the sampler."""
    only: tuple[str, ...] = ()
    """Only rows whose name begins with one of these; all if empty."""
    memory: bool = True
    """Measure peak memory."""
    cache: Path | None = None
    """With --peak: the folder of compiled programs."""
    rmse: bool = True
    """Measure errors of the targets."""


def main(args: Sequence[str] | None = None) -> list[Record]:
    """Measures, prints the table and returns its records."""
    options = parse(PublishedOptions, "published", args)
    if options.peak:
        if options.peak in PEERS.values():
            import_module("torch")
        if options.cache is not None:
            use_compilation_cache(options.cache)
        print(peak_of(lambda: _prepare(options, options.peak)))
        return []
    wanted = [
        name
        for pair in ((name, PEERS.get(name)) for name in OURS)
        for name in pair
        if name and (not options.only or name.startswith(options.only))
    ]
    runs: dict[str, Callable[[], Any]] = {}
    compiling: dict[str, float | None] = {}
    timings: dict[str, Timing] = dict.fromkeys(wanted, Timing(None))
    for name in wanted:
        try:
            runs[name], compiling[name] = _prepare(options, name)
        except ImportError as error:
            timings[name] = Timing(None, error=f"{type(error).__name__}: {error}")
    for name, timing in time_in_turn(runs, options.repeats).items():
        timings[name] = timing._replace(compile=compiling[name])
    peaks = {name: _peak(options, name) for name in runs} if options.memory else {}
    others = target_errors(options) if options.rmse else {}
    if options.memory:
        for name in (name for name in OURS if name in runs):
            others.setdefault(name, {})[FROM_CACHE] = _peak_from_cache(options, name)
    return report(
        "published",
        timings,
        options,
        shapes={
            "states": options.num_states,
            "proposals": options.num_proposals,
            "length": options.length,
            "samples": options.num_samples,
            "steps": options.num_steps,
        },
        baseline=BASELINES,
        peaks=peaks,
        others=others,
    )


# ---------------------------------------------------------------------------------------------- networks


class PublishedMLP(nn.Module):
    """Symbols embedded, times by sines; linear, GELU, two linear layers, two GELUs, linear: `[sites] -> outputs`.

    The same layers as `peers.torch_egm.PublishedMLP`. Embedding and first layer are multiplied before they meet a
    state, and so are the two linear layers in a row; both products are of parameters alone.
    """

    sites: int
    embedding: int
    width: int
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array:
        sites, width = self.sites, self.width
        frequencies = jnp.exp(-math.log(10_000.0) * jnp.arange(width // 2) / (width // 2))
        angles = jnp.asarray(t, dtype=float) * frequencies
        clock = nn.Dense(width)(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)]))
        clock = nn.Dense(width)(_gelu(clock))
        embedding = self.param("embedding", nn.initializers.normal(1.0), (3, self.embedding))
        kernel, bias = self._layer("first", sites * self.embedding + width, width)
        rows = jnp.einsum("se,iew->siw", embedding, kernel[:-width].reshape(sites, self.embedding, width))
        h = bias + clock @ kernel[-width:] + jnp.sum(rows[2], axis=0)
        # relative to a mask at every site: a masked site is a row of zeros
        seen = jax.nn.one_hot(x, 2, axis=0).reshape(-1)
        h = _gelu(h + seen @ (rows[:2] - rows[2:]).reshape(2 * sites, width))
        (second, second_bias), (third, third_bias) = (
            self._layer(n, width, width) for n in ("second", "third")
        )
        h = _gelu(_gelu(h @ (second @ third) + (second_bias @ third + third_bias)))
        last, last_bias = self._layer("last", width, self.outputs)
        return h @ last + last_bias

    def _layer(self, name: str, inputs: int, outputs: int) -> tuple[jax.Array, jax.Array]:
        kernel = self.param(f"{name}_kernel", nn.initializers.lecun_normal(), (inputs, outputs))
        return kernel, self.param(f"{name}_bias", nn.initializers.zeros, (outputs,))


def _gelu(x: jax.Array) -> jax.Array:
    # not jax.nn.gelu, which by way of erfc evaluates two series at every x
    return 0.5 * x * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


class Parts:
    """Path, process, energy and the two networks."""

    def __init__(self, options: PublishedOptions) -> None:
        sites = options.length**2
        self.target = Ising(length=options.length, beta=options.beta)
        self.path = MaskedPath(sites=sites)
        self.process = MaskedProcess(self.path, "uniform")
        self.psi_fn = psi_from_energy(self.target.energy, self.path)
        self.denoiser = PublishedMLP(sites, 8, 32, 3 * sites)
        self.energy_net = PublishedMLP(sites, 4, 256, 1)

    def init(self, key: jax.Array, name: str = "") -> Any:
        """Parameters of both networks, or of the one that the naive step has."""
        x, t = jnp.zeros(self.path.sites, jnp.int32), jnp.zeros(())

        @jax.jit  # a hundred programs else, each with memory of its own
        def both(keys: jax.Array) -> Any:
            return {
                "denoiser": self.denoiser.init(keys[0], x, t),
                "energy": self.energy_net.init(keys[1], x, t),
            }

        params = both(jax.random.split(key))
        return {"denoiser": params["denoiser"]} if name == "naive step" else params

    def generator(self, params: Any, x: jax.Array, t: Any) -> jax.Array:
        """Logits `[sites, 2]`: the third symbol is the mask, whose logit is minus infinity."""
        return jnp.asarray(self.denoiser.apply(params["denoiser"], x, t)).reshape(-1, 3)[:, :2]

    def learned_psi(self, params: Any, x: jax.Array, t: Any) -> jax.Array:
        return jnp.asarray(self.energy_net.apply(params["energy"], x, t))[0]

    def context(self, params: Any) -> Context:
        """Of the first iteration."""
        return Context(params, jnp.ones(()), jnp.int32(0))

    def objective(self, name: str, num_proposals: int) -> Objective:
        """Of the step of that name."""
        if name == "naive step":
            return multispin_objective(
                self.process, self.generator, self.target.multispin_energy, num_proposals=num_proposals
            )
        proposal = reference_posterior(self.path)
        energy = psi_objective(
            self.process,
            self.learned_psi,
            proposal,
            self.psi_fn,
            num_proposals=num_proposals,
            divergence="squared",
        )
        if name == "bootstrapped step":
            generator = snis_objective(
                self.process,
                self.generator,
                proposal,
                self.psi_fn,
                num_proposals=num_proposals,
                chunk_size=CHUNK,
                psi_apply_fn=self.learned_psi,
                step_fn=lambda t, iteration: jnp.asarray(STEP),
            )
        else:
            generator = from_psi_objective(self.process, self.generator, self.learned_psi)
        return sum_objectives({"energy": energy, "generator": generator})


# ---------------------------------------------------------------------------------------------- cases


def _prepare(options: PublishedOptions, name: str) -> tuple[Callable[[], Any], float | None]:
    """What runs a row, and the seconds its compilation took."""
    if name in PEERS.values():
        return _peer(options, name), None
    parts = Parts(options)
    if name == "sampling":
        params = parts.init(jax.random.key(0))
        each = -(-parts.path.sites // options.num_steps)
        sampler = first_hitting_sampler(parts.process, sites_per_step=each)

        def sample(key: jax.Array, params: Any) -> Any:
            keys = jax.random.split(key, options.num_samples)
            return jax.vmap(lambda k: sampler.sample(k, lambda x, t: parts.generator(params, x, t)))(keys)

        return compile_case((sample, (jax.random.key(1), params)))
    return compile_case(make_step(options, parts, name))


def make_step(options: PublishedOptions, parts: Parts, name: str) -> Case:
    """One update of the trainer, its batch drawn from a buffer."""
    trainer = make_trainer(
        data_source(_buffer(options), parts.path.space),
        parts.objective(name, options.num_proposals),
        optax.adam(1e-3),
        batch_size=options.num_states,
        updates_per_iteration=1,
    )
    return trainer.step, (trainer.init(jax.random.key(2), parts.init(jax.random.key(0), name)),)


def _peer(options: PublishedOptions, name: str) -> Callable[[], Any]:
    import torch

    from ..peers.torch_egm import Peer

    buffer = torch.from_numpy(np.array(_buffer(options)))
    peer = Peer(buffer, options.length, options.beta, options.num_proposals)
    return {
        PEERS["naive step"]: lambda: peer.naive_step(options.num_states),
        PEERS["bootstrapped step"]: lambda: peer.bootstrapped_step(options.num_states),
        PEERS["sampling"]: lambda: peer.sample(options.num_samples, options.num_steps),
    }[name]


def _buffer(options: PublishedOptions) -> jax.Array:
    """What the states of a step are drawn from; their law does not matter for speed."""
    return jax.random.randint(jax.random.key(3), (2_000, options.length**2), 0, 2)


def _peak(options: PublishedOptions, name: str, *more: str) -> Peak:
    sizes = {
        "length": options.length,
        "num-states": options.num_states,
        "num-proposals": options.num_proposals,
        "num-samples": options.num_samples,
        "num-steps": options.num_steps,
    }
    words = (word for size, value in sizes.items() for word in (f"--{size}", str(value)))
    return peak_in_child("benchmarks.micro.published", name, *words, *more)


def _peak_from_cache(options: PublishedOptions, name: str) -> float:
    """MiB of a process that loads what another has compiled."""
    with tempfile.TemporaryDirectory() as folder:
        return [_peak(options, name, "--cache", folder).process for _ in range(2)][1]


# ---------------------------------------------------------------------------------------------- errors


def target_errors(options: PublishedOptions) -> dict[str, dict[str, float]]:
    """RMSE of `P(x_1[i] = 1 | x_t)` at the masked sites of one state, by each of the targets."""
    sites, t = options.length**2, 0.5
    path = MaskedPath(sites=sites)
    process = MaskedProcess(path)
    truth = 1.0 / (1.0 + math.exp(-2.0 * FIELD))

    def psi(x: jax.Array, r: Any = 1.0) -> jax.Array:
        each = jnp.where(x == path.mask, math.log(math.cosh(FIELD)), FIELD * (2.0 * x - 1.0))
        return jnp.sum(each)

    def error(key: jax.Array) -> dict[str, jax.Array]:
        key_mask, key_naive, key_boot = jax.random.split(key, 3)
        xt = path.sample(key_mask, jnp.ones(sites, jnp.int32), t)

        def estimate(key_e: jax.Array, r: Any) -> jax.Array:
            proposal = reference_posterior(path)
            return snis(
                key_e,
                xt,
                t,
                r,
                process=process,
                proposal=proposal,
                psi_fn=psi,
                num_proposals=options.num_proposals,
            ).target

        targets = {
            "naive step": estimate(key_naive, 1.0),
            "bootstrapped step": estimate(key_boot, t + STEP),
            "Rao-Blackwellised step": process.target_from_psi(xt, t, psi),
        }
        is_masked = xt == path.mask
        return {
            name: jnp.sum(jnp.where(is_masked, (target[:, 1] - truth) ** 2, 0.0)) / jnp.sum(is_masked)
            for name, target in targets.items()
        }

    squares = jax.jit(lambda keys: jax.lax.map(error, keys, batch_size=8))(
        jax.random.split(jax.random.key(4), 32)
    )
    return {name: {"RMSE": float(jnp.sqrt(jnp.mean(values)))} for name, values in squares.items()}


if __name__ == "__main__":
    main()
