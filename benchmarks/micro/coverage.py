"""Does the certified interval for log Z hold what it promises, for every process and a network that is wrong?

    python -m benchmarks.micro.coverage [--repeats 200] [--num-samples 2000] [--only masked] [--tiny]

Each run draws `num_samples` roll-outs of a spoiled network, a fixed smooth function that has learned nothing, on
a target whose log Z is a sum over states or a closed form, and asks whether the interval `log_z +- 1.96 stderr` of
`metrics.summarize_weights` covers it. Printed: the fraction that does with its own 95 % interval (Clopper and
Pearson), mean and standard deviation of `(log_z - exact) / stderr` (0 and 1 for a normal law), mean ESS.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy.stats import binomtest

from egmjax import metrics
from egmjax.estimators import PsiFn, psi_from_energy
from egmjax.networks import state_features
from egmjax.paths import (
    GaussianPath,
    MaskedPath,
    MetricPath,
    MixturePath,
    Ordered,
    Polynomial,
    Trigonometric,
    UniformPath,
)
from egmjax.processes import (
    BinnedHead,
    DiffusionProcess,
    FlowProcess,
    GaussianJumpProcess,
    MaskedProcess,
    MixtureProcess,
    PredictFn,
    Process,
    ProductProcess,
    PureDiffusionProcess,
    RateProcess,
    SuperpositionProcess,
)
from egmjax.simulators import Sampler, first_hitting_sampler, grid_sampler, time_grid
from egmjax.states import Categorical
from egmjax.targets import GaussianMixture, JointMoG, Target, enumerated_log_z, from_energy

NORMAL_QUANTILE = 1.959964
STEPS = 4  # of every grid: coarse, so that steps are far from the generator they stand for
RUNS_AT_ONCE = 4


@dataclass(kw_only=True)
class CoverageOptions:
    """Options of the measurement."""

    repeats: int = 200
    """Runs of each process."""
    num_samples: int = 2_000
    """Roll-outs in a run."""
    only: str = ""
    """Measure the processes whose name contains this."""
    seed: int = 0
    """Seed of the roll-outs."""
    tiny: bool = False
    """20 runs of 200 roll-outs: whether everything runs, not whether it is right."""


class Case(NamedTuple):
    """A sampler, a network that is wrong, and the exact answer."""

    sampler: Sampler
    predict_fn: PredictFn
    psi_fn: PsiFn
    log_z: float


class Coverage(NamedTuple):
    """Fraction of runs whose interval covers log Z, its 95 % interval, and the law of the z-scores."""

    fraction: float
    low: float
    high: float
    mean_score: float
    score_std: float
    ess_fraction: float
    num_nonfinite: int


def main() -> None:
    """Prints the table."""
    options = tyro.cli(CoverageOptions, prog="python -m benchmarks.micro.coverage")
    repeats, num_samples = (20, 200) if options.tiny else (options.repeats, options.num_samples)
    print(f"{repeats} runs of {num_samples} roll-outs")
    print(f"{'process':<34}{'coverage':>9}{'95 % interval':>15}{'mean z':>8}{'sd z':>6}{'ESS':>7}{'s':>7}")
    for name, build in CASES.items():
        if options.only not in name:
            continue
        started = time.perf_counter()
        found = measure(build(), jax.random.key(options.seed), repeats, num_samples)
        print(
            f"{name:<34}{found.fraction:>9.3f}{f'{found.low:.3f}, {found.high:.3f}':>15}{found.mean_score:>8.2f}"
            f"{found.score_std:>6.2f}{found.ess_fraction:>7.3f}{time.perf_counter() - started:>7.1f}"
            + (f"  {found.num_nonfinite} weights not finite" if found.num_nonfinite else ""),
            flush=True,
        )


def measure(case: Case, key: jax.Array, repeats: int, num_samples: int) -> Coverage:
    """Coverage of `case` over `repeats` runs of `num_samples` roll-outs; one compiled function."""

    def run(key_run: jax.Array) -> metrics.WeightSummary:
        keys = jax.random.split(key_run, num_samples)
        rollouts = jax.vmap(lambda k: case.sampler.sample(k, case.predict_fn))(keys)
        psi = jax.vmap(lambda x: case.psi_fn(x, 1.0))(rollouts.x)
        return metrics.summarize_weights(psi + rollouts.log_weight)

    runs = jax.jit(lambda keys: jax.lax.map(run, keys, batch_size=min(RUNS_AT_ONCE, repeats)))
    found = jax.tree.map(lambda a: np.asarray(a, np.float64), runs(jax.random.split(key, repeats)))
    with np.errstate(invalid="ignore"):  # a run without a usable weight covers nothing: its score is nan
        scores = (found.log_z - case.log_z) / found.log_z_stderr
    covered = binomtest(int(np.sum(np.abs(scores) <= NORMAL_QUANTILE)), repeats)
    interval = covered.proportion_ci(0.95)
    return Coverage(
        covered.statistic,
        interval.low,
        interval.high,
        float(scores.mean()),
        float(scores.std(ddof=1)),
        float(found.ess_fraction.mean()),
        int(found.num_nonfinite.sum()),
    )


def wrong_prediction(process: Process, gain: float, seed: int = 0) -> PredictFn:
    """`gain sin(W features + b + 2 t)`, `W` and `b` fixed normal numbers: smooth, bounded, and about nothing."""
    space = process.path.space

    def predict(xt: Any, t: Any) -> Any:
        features = state_features(space, xt)
        rng = np.random.default_rng(seed)

        def output(shape: tuple[int, ...]) -> jax.Array:
            weights = jnp.asarray(rng.normal(size=(math.prod(shape), features.size)), dtype=float)
            offset = jnp.asarray(rng.normal(size=math.prod(shape)), dtype=float)
            return gain * jnp.sin(weights @ features + offset + 2.0 * t).reshape(shape)

        shapes = process.prediction_shape()
        return tuple(map(output, shapes)) if isinstance(shapes[0], tuple) else output(shapes)

    return predict


def corrected(process: Process) -> Sampler:
    """Predictor-corrector on the coarse grid: two corrections a step, of up to half its length."""
    return grid_sampler(
        process, time_grid(STEPS), corrector_fn=lambda t: 2.0 * t * (1.0 - t), num_corrections=2
    )


def case_of(
    process: Process, target: Target, log_z: float, gain: float, sampler: Sampler | None = None
) -> Case:
    """A case on the coarse grid, unless another sampler is given."""
    return Case(
        sampler or grid_sampler(process, time_grid(STEPS)),
        wrong_prediction(process, gain),
        psi_from_energy(target.energy, process.path),
        log_z,
    )


def _gaussian_path(dim: int = 2) -> GaussianPath:
    return GaussianPath(Trigonometric(1.4), mean=0.1, scale=1.4, shape=(dim,))


def _continuous(process: Process, gain: float = 0.3, sampler: Sampler | None = None) -> Case:
    """Two overlapping modes in the plane."""
    means, scales = np.array([[-1.2, 0.3], [1.0, -0.5]]), np.array([0.8, 0.7])
    target = GaussianMixture(means, scales, np.log([0.4, 0.6]), log_scale=0.7)
    return case_of(process, target, target.log_z, gain, sampler)


def _discrete(process: Process, sampler: Sampler | None = None, gain: float = 0.4) -> Case:
    """A ring of four three-state Potts spins in an uneven field: 81 states."""
    field = jnp.asarray([0.4, 0.0, -0.3])
    target = from_energy(
        lambda x: -0.7 * jnp.sum(x == jnp.roll(x, 1)) - jnp.sum(field[x]), Categorical(SITES, 3)
    )
    return case_of(process, target, enumerated_log_z(target), gain, sampler)


def _mixed(real: Callable[[GaussianPath], Process], discrete: Process) -> Case:
    """Two pairs of a real number and the sign of its mode."""
    target = JointMoG(num_pairs=2, scale=0.8)
    return case_of(ProductProcess((real(_gaussian_path()), discrete)), target, target.log_z, 0.2)


SITES = 4
_SCHEDULES = {
    "random order": lambda: Polynomial(1.5),
    "fixed order": lambda: Ordered.from_rank([2, 0, 3, 1]),
    "two blocks": lambda: Ordered.from_rank([0, 1, 0, 1]),
}


def _masked(schedule: str) -> MaskedProcess:
    return MaskedProcess(MaskedPath(_SCHEDULES[schedule](), sites=SITES, num_states=3))


def _by_first_hitting(schedule: str) -> Case:
    return _discrete(_masked(schedule), first_hitting_sampler(_masked(schedule)))


def _mixture(prior: list[float] | None) -> Case:
    path = MixturePath(prior=None if prior is None else jnp.asarray(prior), sites=SITES, num_states=3)
    return _discrete(MixtureProcess(path))


def _both() -> SuperpositionProcess:
    path = _gaussian_path()
    return SuperpositionProcess((FlowProcess(path), DiffusionProcess(path, 1.5)), (0.5, 0.5))


_HEAD = BinnedHead(bins=12, reach=3.0)


def _jump() -> GaussianJumpProcess:
    return GaussianJumpProcess(_gaussian_path(), head=_HEAD)


def _flow_and_jump() -> SuperpositionProcess:
    return SuperpositionProcess((FlowProcess(_gaussian_path(), head=_HEAD), _jump()), (0.5, 0.5))


def _rates(**options: Any) -> RateProcess:
    return RateProcess(MetricPath.ordinal(SITES, 3, schedule=Polynomial(1.3)), **options)


def _pure_diffusion() -> PureDiffusionProcess:
    # the box leaves out 2e-5 of the target, a thousandth of a standard error
    return PureDiffusionProcess(UniformPath(-4.5, 4.5, shape=(2,)))


def _diffusion(noise: float) -> Case:
    return _continuous(DiffusionProcess(_gaussian_path(), noise), 0.2)


_PAIR_MASKED = MaskedProcess(MaskedPath(sites=2, num_states=2))
_PAIR_MIXTURE = MixtureProcess(MixturePath(sites=2, num_states=2))

CASES: dict[str, Callable[[], Case]] = {
    "flow, euler": lambda: _continuous(FlowProcess(_gaussian_path(), stepper="euler")),
    "flow, heun": lambda: _continuous(FlowProcess(_gaussian_path())),
    "diffusion, noise .3": lambda: _diffusion(0.3),
    "diffusion, noise 1": lambda: _diffusion(1.0),
    "diffusion, noise 2.5": lambda: _diffusion(2.5),
    "superposition, flow + diffusion": lambda: _continuous(_both(), 0.2),
    "diffusion, corrected": lambda: _continuous(
        DiffusionProcess(_gaussian_path()), 0.2, corrected(DiffusionProcess(_gaussian_path()))
    ),
    "jump": lambda: _continuous(_jump()),
    "jump, corrected": lambda: _continuous(_jump(), 0.2, corrected(_jump())),
    "superposition, flow + jump": lambda: _continuous(_flow_and_jump()),
    "pure diffusion": lambda: _continuous(_pure_diffusion()),
    **{f"masked, grid, {s}": (lambda s=s: _discrete(_masked(s))) for s in _SCHEDULES},  # type: ignore[misc]
    **{f"masked, first hitting, {s}": (lambda s=s: _by_first_hitting(s)) for s in _SCHEDULES},  # type: ignore[misc]
    "mixture, uniform prior": lambda: _mixture(None),
    "mixture, other prior": lambda: _mixture([0.5, 0.2, 0.3]),
    "masked, corrected": lambda: _discrete(_masked("random order"), corrected(_masked("random order"))),
    "rates, coupling": lambda: _discrete(_rates()),
    "rates, coupling, corrected": lambda: _discrete(_rates(), corrected(_rates())),
    **{
        f"rates, leap, {f}": (lambda f=f: _discrete(_rates(family=f, stepper="leap")))  # type: ignore[misc]
        for f in ("minimal", "campbell", "kinetic")
    },
    "product, flow x masked": lambda: _mixed(FlowProcess, _PAIR_MASKED),
    "product, diffusion x masked": lambda: _mixed(DiffusionProcess, _PAIR_MASKED),
    "product, diffusion x mixture": lambda: _mixed(DiffusionProcess, _PAIR_MIXTURE),
}


if __name__ == "__main__":
    main()
