"""Every path, process, generator, proposal and sampler, once. Contract tests run over these tables.

A new object is added here and inherits the tests of its family. Builders are functions, so that arrays are
made in the float type of the test that asks. `CLOSED_FORMS` holds the schedules written out by hand in
numpy: value and derivative, independent of the library.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from egmjax.estimators import snis
from egmjax.generators import Diffusion, Flow, Jump, RealJump, Superposition
from egmjax.paths import (
    CondOT,
    Cosine,
    GaussianPath,
    GivenPath,
    Linear,
    MaskedPath,
    MetricPath,
    MixturePath,
    Ordered,
    Polynomial,
    ProductPath,
    Trigonometric,
    UniformPath,
    VarianceExploding,
    VariancePreserving,
)
from egmjax.processes import (
    AmortizedProcess,
    BinnedHead,
    DiffusionProcess,
    FlowProcess,
    GaussianJumpProcess,
    MaskedProcess,
    MixtureProcess,
    ProductProcess,
    PureDiffusionProcess,
    RateProcess,
    SuperpositionProcess,
)
from egmjax.proposals import (
    annealed,
    defensive_mixture,
    from_density,
    model_density,
    model_rollout,
    reference_density,
    reference_posterior,
    replay,
)
from egmjax.simulators import first_hitting_sampler, grid_sampler, time_grid
from egmjax.states import Categorical, Real

MEAN, SCALE = 0.3, 1.2  # of the reference of every Gaussian path below

GAUSSIAN_SCHEDULES = {
    "condot": lambda: CondOT(1.5),
    "trigonometric": lambda: Trigonometric(1.2),
    "trigonometric_late": lambda: Trigonometric(1.2, 2.0),
    "variance_preserving": lambda: VariancePreserving(1.1, 0.1, 8.0),
    "variance_exploding": lambda: VarianceExploding(0.05, 3.0),
}

MASKED_SCHEDULES = {
    "linear": Linear,
    "polynomial": lambda: Polynomial(1.7),
    "cosine": Cosine,
    "ordered": lambda: Ordered.from_rank([1, 0]),
    "ordered_groups": lambda: Ordered.from_rank([0, 0]),
}


def _condot(t):
    return t, 1.0, 1.5 * (1 - t), -1.5


def _trigonometric(t):
    half = 0.5 * math.pi
    return (
        math.sin(half * t),
        half * math.cos(half * t),
        1.2 * math.cos(half * t),
        -1.2 * half * math.sin(half * t),
    )


def _trigonometric_late(t):
    half, left = 0.5 * math.pi, (1 - t) ** 2
    slope = -2 * (1 - t)
    return (
        math.cos(half * left),
        -half * slope * math.sin(half * left),
        1.2 * math.sin(half * left),
        1.2 * half * slope * math.cos(half * left),
    )


def _variance_preserving(t):
    a, b, u = 0.1, 8.0, 1 - t
    exponent, slope = 0.5 * u * u * (b - a) + u * a, -(u * (b - a) + a)
    alpha, decay = math.exp(-0.5 * exponent), math.exp(-exponent)
    sigma = 1.1 * math.sqrt(1 - decay)
    return alpha, -0.5 * slope * alpha, sigma, 1.1**2 * decay * slope / (2 * sigma)


def _variance_exploding(t):
    low, ratio = 0.05, 3.0 / 0.05
    sigma = low * math.sqrt(ratio ** (2 * (1 - t)) - 1)
    return 1.0, 0.0, sigma, -(low**2) * math.log(ratio) * ratio ** (2 * (1 - t)) / sigma


def _ordered(rank):
    rank = np.asarray(rank)
    size = rank.max() + 1

    def form(t):
        u = t * size - rank
        return np.clip(u, 0, 1), np.where((u >= 0) & (u < 1), size, 0.0).astype(float)

    return form


GAUSSIAN_FORMS = {  # t -> alpha, alpha', sigma, sigma'
    "condot": _condot,
    "trigonometric": _trigonometric,
    "trigonometric_late": _trigonometric_late,
    "variance_preserving": _variance_preserving,
    "variance_exploding": _variance_exploding,
}

MASKED_FORMS = {  # t -> kappa [2], kappa' [2]
    "linear": lambda t: (np.full(2, t), np.ones(2)),
    "polynomial": lambda t: (np.full(2, t**1.7), np.full(2, 1.7 * t**0.7)),
    "cosine": lambda t: (
        np.full(2, 1 - math.cos(0.5 * math.pi * t)),
        np.full(2, 0.5 * math.pi * math.sin(0.5 * math.pi * t)),
    ),
    "ordered": _ordered([1, 0]),
    "ordered_groups": _ordered([0, 0]),
}


def gaussian_path(name, shape=(2,)):
    return GaussianPath(GAUSSIAN_SCHEDULES[name](), mean=MEAN, scale=SCALE, shape=shape)


def masked_path(name, num_states=3):
    return MaskedPath(MASKED_SCHEDULES[name](), sites=2, num_states=num_states)


def mixture_path(name, prior=None, num_states=3):
    prior = None if prior is None else jnp.asarray(prior, dtype=float)
    return MixturePath(MASKED_SCHEDULES[name](), prior, sites=2, num_states=num_states)


def _draw_condition(key):
    return jax.random.normal(key, (2,))


def _product_path():
    return ProductPath((gaussian_path("condot"), masked_path("linear")))


PATHS = {
    **{f"gaussian_{name}": (lambda name=name: gaussian_path(name)) for name in GAUSSIAN_SCHEDULES},
    **{f"masked_{name}": (lambda name=name: masked_path(name)) for name in MASKED_SCHEDULES},
    "masked_evidence": lambda: dataclasses.replace(
        masked_path("polynomial"), evidence=jnp.array([3, 1], jnp.int32)
    ),
    "mixture_uniform": lambda: mixture_path("cosine"),
    "mixture_prior": lambda: mixture_path("linear", [0.5, 0.2, 0.3]),
    "metric": lambda: MetricPath.ordinal(2, 3, schedule=Polynomial(1.3)),
    "uniform_box": lambda: UniformPath(-1.5, 2.0, Polynomial(1.3), (2,)),
    "given": lambda: GivenPath(_draw_condition, Real((2,))),
    "product": _product_path,
}


PROCESSES = {
    "flow_heun": lambda: FlowProcess(gaussian_path("trigonometric")),
    "flow_steep": lambda: FlowProcess(gaussian_path("variance_exploding")),
    "diffusion": lambda: DiffusionProcess(gaussian_path("condot"), noise=1.0),
    "diffusion_weak": lambda: DiffusionProcess(gaussian_path("variance_preserving"), noise=jnp.asarray(0.3)),
    "flow_and_diffusion": lambda: SuperpositionProcess(
        (FlowProcess(gaussian_path("trigonometric")), DiffusionProcess(gaussian_path("trigonometric"), 2.0)),
        (0.4, 0.6),
    ),
    "separate_models": lambda: SuperpositionProcess(
        (DiffusionProcess(gaussian_path("condot")), FlowProcess(gaussian_path("condot"), stepper="euler")),
        (0.5, 0.5),
        separate=True,
    ),
    "gaussian_jump": lambda: GaussianJumpProcess(gaussian_path("condot"), head=BinnedHead(6, 2.5)),
    "mixture_uniform": lambda: MixtureProcess(mixture_path("polynomial")),
    "mixture_prior": lambda: MixtureProcess(mixture_path("linear", [0.5, 0.2, 0.3]), weighting="uniform"),
    "rates_coupling": lambda: RateProcess(PATHS["metric"]()),
    "rates_leap": lambda: RateProcess(
        PATHS["metric"](), weighting="uniform", family="kinetic", stepper="leap"
    ),
    "pure_diffusion": lambda: PureDiffusionProcess(PATHS["uniform_box"]()),
    "flow_euler": lambda: FlowProcess(gaussian_path("condot"), stepper="euler"),
    "masked_rate": lambda: MaskedProcess(masked_path("polynomial")),
    "masked_uniform": lambda: MaskedProcess(masked_path("ordered"), weighting="uniform"),
    "masked_evidence": lambda: MaskedProcess(PATHS["masked_evidence"]()),
    "amortized": lambda: AmortizedProcess(
        GivenPath(_draw_condition, Real((2,))), MaskedProcess(masked_path("linear"))
    ),
    "product": lambda: ProductProcess(
        (FlowProcess(gaussian_path("condot")), MaskedProcess(masked_path("linear")))
    ),
}

SAMPLERS = {
    **{
        f"grid_{name}": (lambda build=build: (build(), grid_sampler(build(), time_grid(3))))
        for name, build in PROCESSES.items()
    },
    **{
        f"first_hitting_{name}": (lambda build=PROCESSES[name]: (build(), first_hitting_sampler(build())))
        for name in ("masked_rate", "masked_uniform", "masked_evidence", "amortized")
    },
    **{
        f"two_a_step_{name}": (
            lambda build=PROCESSES[name]: (build(), first_hitting_sampler(build(), sites_per_step=2))
        )
        for name in ("masked_rate", "masked_evidence", "amortized")
    },
}


def bounded_psi(x, r):
    """A stand-in for `psi` on any space."""
    return sum(jnp.sum(jnp.cos(leaf.astype(float))) for leaf in jax.tree.leaves(x)) + 0.0 * r


def _model(process):
    return from_density(process.path, model_density(process, garbage(process)))


def _defensive(process):
    densities = (model_density(process, garbage(process)), reference_density(process.path))
    return from_density(process.path, defensive_mixture(densities, (0.7, 0.3)))


def _replay(process):
    states = [endpoint(process.path.space, seed) for seed in range(3)]
    return replay(process.path, jax.tree.map(lambda *a: jnp.stack(a), *states), jnp.array([0.3, -0.1, 0.8]))


def _annealed(process):
    return annealed(process.path, bounded_psi, num_temperatures=3, refresh=0.4)


def _rollout(process):
    return model_rollout(grid_sampler(process, time_grid(2)), garbage(process))


PROPOSALS = {  # builder from a process, the name of a process it is tried with
    "reference_posterior": (lambda process: reference_posterior(process.path), "flow_euler"),
    "from_density": (lambda process: from_density(process.path, reference_density(process.path)), "product"),
    "antithetic": (lambda process: reference_posterior(process.path, antithetic=True), "product"),
    "antithetic_mixture": (
        lambda process: reference_posterior(process.path, antithetic=True),
        "mixture_uniform",
    ),
    "model_density": (_model, "product"),
    "model_density_superposition": (_model, "flow_and_diffusion"),
    "defensive_mixture": (_defensive, "mixture_prior"),
    "defensive_mixture_product": (_defensive, "product"),
    "model_rollout": (_rollout, "masked_rate"),
    "replay": (_replay, "mixture_uniform"),
    "annealed": (_annealed, "product"),
    "annealed_mixture": (_annealed, "mixture_prior"),
}

GENERATORS = {  # generator, a state it acts on
    "flow": lambda: (Flow(jnp.array([0.3, -1.0])), jnp.array([0.2, 0.7])),
    "diffusion_scalar": lambda: (
        Diffusion(jnp.array([0.3, -1.0]), jnp.asarray(0.8)),
        jnp.array([0.2, 0.7]),
    ),
    "diffusion_diagonal": lambda: (
        Diffusion(jnp.array([0.3, -1.0]), jnp.array([0.8, 0.1])),
        jnp.array([0.2, 0.7]),
    ),
    "diffusion_full": lambda: (
        Diffusion(jnp.array([0.3, -1.0]), jnp.array([[0.8, 0.2], [0.2, 0.3]])),
        jnp.array([0.2, 0.7]),
    ),
    "jump": lambda: (
        Jump(jnp.array([[0.2, 0.0, 1.0], [0.0, 0.0, 0.0]])),
        jnp.array([3, 1], dtype=jnp.int32),
    ),
    "real_jump": lambda: (
        RealJump(
            jnp.array([[0.2, 0.4, 1.0], [0.1, 0.0, 0.3]]), jnp.array([[0.5, -1.0, 2.0], [0.3, 0.1, -0.4]])
        ),
        jnp.array([0.2, 0.7]),
    ),
    "superposition": lambda: (
        Superposition((Flow(jnp.array([0.3, -1.0])), Jump(jnp.array([[0.2, 0.5], [0.1, 0.0]])))),
        jnp.array([0.2, 0.7]),
    ),
    "product": lambda: (
        (Flow(jnp.array([0.3, -1.0])), Jump(jnp.array([[0.2, 0.0, 1.0], [0.4, 0.0, 0.0]]))),
        (jnp.array([0.2, 0.7]), jnp.array([3, 1], dtype=jnp.int32)),
    ),
}


def endpoint(space, seed=0):
    """A data point of `space`, mask-free, from a fixed seed."""
    rng = np.random.default_rng(seed)
    match space:
        case Real(shape):
            return jnp.asarray(rng.normal(size=shape), dtype=float)
        case Categorical(sites, num_states):
            return jnp.asarray(rng.integers(0, num_states, size=sites), dtype=jnp.int32)
    return tuple(endpoint(component, seed + i) for i, component in enumerate(space))


def garbage(process, seed=1, gain=0.8):
    """A smooth wrong prediction that depends on the whole state and on time, in place of a trained network."""

    def predict(xt, t):
        parts = [jnp.ravel(leaf).astype(float) for leaf in jax.tree.leaves(xt)]
        features = jnp.concatenate(parts)
        rng = np.random.default_rng(seed)

        def output(shape):
            weights = jnp.asarray(rng.normal(size=(*shape, features.size)), dtype=float)
            offsets = jnp.asarray(rng.normal(size=shape), dtype=float)
            return gain * jnp.sin(weights @ features + offsets + t)

        shapes = process.prediction_shape()
        nested = isinstance(shapes[0], tuple)
        return tuple(output(s) for s in shapes) if nested else output(shapes)

    return predict


def run_snis(key, xt, t, r, process, proposal, num_proposals=7, chunk_size=4):
    """A small estimate with a bounded stand-in for `psi`; seven proposals leave the last chunk padded."""
    return snis(
        key,
        xt,
        t,
        r,
        process=process,
        proposal=proposal,
        psi_fn=bounded_psi,
        num_proposals=num_proposals,
        chunk_size=chunk_size,
    )
