"""Proposals against exact answers: `E[w] = exp(psi(x_t, t))`, the estimate, and the laws they claim to draw from.

Targets: an enumerated energy on masked and mixture paths, a Gaussian mixture in closed form. Statistical tolerance:
4 standard errors (4.5 for the largest of several entries) with fixed keys.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from egmjax.estimators import psi_from_energy, snis
from egmjax.paths import GaussianPath, MaskedPath, MixturePath, Path
from egmjax.processes import (
    DiffusionProcess,
    FlowProcess,
    MaskedProcess,
    MixtureProcess,
    Process,
    ProductProcess,
    SuperpositionProcess,
)
from egmjax.proposals import (
    Density,
    Proposal,
    annealed,
    defensive_mixture,
    from_density,
    model_density,
    model_rollout,
    reference_density,
    reference_posterior,
    replay,
)
from egmjax.proposals._annealed import posterior_move
from egmjax.simulators import first_hitting_sampler, grid_sampler, time_grid
from tests.core.checks import chi_square_score, ess_fraction, kolmogorov_score, weight_score, z_score
from tests.core.exact import Mixture, Table, grid, number
from tests.core.registry import MEAN, SCALE, garbage, gaussian_path

T, K = 0.3, 4.0
TABLE = Table(3, 3, seed=6)
LINE = Mixture([[-1.0], [1.4]], [0.4, 0.7], [0.35, 0.65], log_z=0.8)


class Case(NamedTuple):
    """A process, a state, `psi(x, 1)`, and the exact `psi(xt, T)` and target."""

    process: Process
    xt: jax.Array
    psi_fn: object
    psi: float
    target: np.ndarray

    @property
    def path(self) -> Path:
        return self.process.path


def masked_case():
    xt = jnp.array([3, 1, 3], jnp.int32)
    row = int(number(xt, 4))
    return Case(
        MaskedProcess(MaskedPath(sites=3, num_states=3)),
        xt,
        TABLE.psi_fn,
        TABLE.psi[row],
        TABLE.denoiser[row],
    )


def mixture_case():
    path, xt = MixturePath(sites=3, num_states=3), np.array([2, 0, 1])
    likelihood = (T * (TABLE.x1 == xt) + (1 - T) / 3).prod(-1)
    mass = likelihood * np.exp(-TABLE.energies)
    one_hot = TABLE.x1[:, :, None] == np.arange(3)
    target = np.einsum("k,kis->is", mass / mass.sum(), one_hot)
    psi = np.log(mass.sum()) + 3 * np.log(3)
    return Case(
        MixtureProcess(path), jnp.asarray(xt, jnp.int32), psi_from_energy(TABLE.energy, path), psi, target
    )


def gaussian_case():
    process = DiffusionProcess(gaussian_path("condot", (1,)))
    alpha, sigma, xt = T, 1.5 * (1 - T), np.array([0.2])
    reference = norm.pdf(xt, alpha * MEAN, np.hypot(alpha * SCALE, sigma))
    psi = np.log(LINE.noised(alpha, sigma).pdf(xt) * np.exp(LINE.log_z) / reference).item()
    exact = LINE.residual(process.path)(jnp.asarray(xt), jnp.asarray(T))
    return Case(process, jnp.asarray(xt, float), psi_from_energy(LINE.energy, process.path), psi, exact)


CASES = {"masked": masked_case, "mixture": mixture_case, "gaussian": gaussian_case}


def model(case):
    return model_density(case.process, garbage(case.process))


def defensive(case):
    return defensive_mixture((model(case), reference_density(case.path)), (0.8, 0.2))


def rollout(case):
    sampler = grid_sampler(case.process, time_grid(3))
    if isinstance(case.process, MaskedProcess):
        sampler = first_hitting_sampler(case.process)
    return model_rollout(sampler, garbage(case.process))


def anneal(case):
    return annealed(case.path, case.psi_fn, num_temperatures=4, refresh=0.5)


PROPOSALS = {
    "antithetic": lambda case: reference_posterior(case.path, antithetic=True),
    "model_density": lambda case: from_density(case.path, model(case)),
    "defensive_mixture": lambda case: from_density(case.path, defensive(case)),
    "model_rollout": rollout,
    "annealed": anneal,
}


def weighted(case, proposal, seed=1, num=20_000):
    """Log-weights and weights times targets, relative to `exp(psi)`, of pairs of draws: antithetic ones depend."""

    @jax.jit
    def run(key):
        xr, log_ratio = proposal.propose(key, case.xt, T, 1.0, num)
        log_w = jax.vmap(lambda x: case.psi_fn(x, 1.0))(xr) + log_ratio - case.psi
        targets = jax.vmap(lambda x: case.process.target(case.xt, x, T))(xr)
        return log_w, targets

    log_w, targets = (np.asarray(a, np.float64) for a in run(jax.random.key(seed)))
    w = np.exp(log_w)
    product = w.reshape(-1, *(1,) * (targets.ndim - 1)) * targets
    return np.log(w.reshape(-1, 2).mean(1)), product.reshape(-1, 2, *product.shape[1:]).mean(1)


@pytest.mark.parametrize("case_name", CASES)
@pytest.mark.parametrize("name", PROPOSALS)
def test_weights_and_weighted_targets_are_unbiased(name, case_name):
    """`E_q[w] = exp(psi)` and `E_q[w f] = exp(psi) E[f | x_t]`: the estimate converges to the denoiser."""
    case = CASES[case_name]()
    log_w, product = weighted(case, PROPOSALS[name](case))
    score, error = weight_score(log_w, 0.0)
    assert score < K
    assert error < 0.03
    assert z_score(product, np.asarray(case.target)) < 4.5
    assert np.abs(product.mean(0) - case.target).max() < 0.06


def test_the_estimator_takes_them():
    """Streamed in chunks that do not divide their number, to the exact denoiser."""
    case = masked_case()
    run = jax.jit(
        jax.vmap(
            lambda key: snis(
                key,
                case.xt,
                T,
                process=case.process,
                proposal=anneal(case),
                psi_fn=case.psi_fn,
                num_proposals=1001,
            )
        )
    )
    result = run(jax.random.split(jax.random.key(2), 20))
    assert z_score(np.asarray(result.target)[:, [0, 2]], case.target[[0, 2]]) < 4.5
    assert z_score(result.log_normalizer, case.psi) < 4.5
    assert not np.any(result.info.num_nonfinite)


def test_faulty_weights_are_detected():
    case = masked_case()
    draw = from_density(case.path, model(case)).propose
    unbalanced = Density(defensive(case).sample, model(case).log_prob)  # one component's density

    def unannealed(*args):
        x, log_ratio = anneal(case).propose(*args)
        return x, jnp.zeros_like(log_ratio)

    for faulty in (
        Proposal(lambda *args: (draw(*args)[0], jnp.zeros((args[-1],)))),  # forgets its density
        from_density(case.path, unbalanced),
        Proposal(unannealed),
    ):
        assert weight_score(weighted(case, faulty)[0], 0.0)[0] > 6


# -- reflections ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case_name", CASES)
def test_antithetic_draws_have_the_law_of_the_reference(case_name):
    """Both halves, and pairs are reflections of each other."""
    case = CASES[case_name]()
    r = 0.7
    proposal = reference_posterior(case.path, antithetic=True)
    xr, log_ratio = jax.jit(lambda key: proposal.propose(key, case.xt, T, r, 20_001))(jax.random.key(3))
    assert np.all(log_ratio == 0)
    first, second = np.asarray(xr)[0::2], np.asarray(xr)[1::2]
    assert (len(first), len(second)) == (10_001, 10_000)
    mirrored = jax.jit(jax.vmap(lambda x: case.path.reflect(x, case.xt, T, r)))(first[:-1])
    np.testing.assert_allclose(second, mirrored, atol=1e-5)
    if case_name == "gaussian":
        mean, variance = case.path._reference_posterior(case.xt, T, r)
        for half in (first, second):
            assert kolmogorov_score(half[:, 0], norm(mean.item(), np.sqrt(variance).item()).cdf) < 2
        np.testing.assert_allclose(0.5 * (first[:-1] + second), np.tile(mean, (10_000, 1)), atol=1e-5)
        return
    symbols = 4 if case_name == "masked" else 3
    states = jnp.asarray(grid(symbols, 3))
    probs = np.exp(jax.jit(jax.vmap(lambda x: case.path.propose_log_prob(x, case.xt, T, r)))(states))
    np.testing.assert_allclose(probs.sum(), 1, rtol=1e-5)
    for half in (first, second):
        assert chi_square_score(number(half, symbols), probs) < K
    assert np.mean(np.any(first[:-1] != second, axis=1)) > 0.4, "reflections move"


def test_antithetic_draws_are_exact_for_odd_functions():
    """The mean of a Gaussian posterior, from one pair; a wrong centre is seen at once."""
    case = gaussian_case()
    xr, _ = reference_posterior(case.path, antithetic=True).propose(jax.random.key(0), case.xt, T, 1.0, 2)
    belief = case.path.endpoint_belief(case.xt, T)
    np.testing.assert_allclose(xr.mean(0), belief.mean, atol=1e-6)
    wrong = case.path.reflect(
        case.path.reflect(xr[0], case.xt + 0.1, T), case.xt, T
    )  # centre of another state
    assert abs(float(wrong[0] - xr[0, 0])) > 0.01


def test_paths_without_a_reflection_are_refused():
    uneven = MixturePath(prior=jnp.array([0.5, 0.2, 0.3]), sites=2, num_states=3)
    for path, message in [(uneven, "^prior: "), (MixturePath(sites=2, num_states=2), "^num_states: ")]:
        with pytest.raises(ValueError, match=message):
            reference_posterior(path, antithetic=True)


# -- densities --------------------------------------------------------------------------------------------


def densities(case):
    return {"reference": reference_density(case.path), "model": model(case), "defensive": defensive(case)}


@pytest.mark.parametrize("name", ["reference", "model", "defensive"])
@pytest.mark.parametrize("case_name", ["masked", "mixture"])
def test_densities_are_the_laws_of_their_draws(case_name, name):
    case = CASES[case_name]()
    density = densities(case)[name]
    probs = np.exp(jax.jit(jax.vmap(lambda x: density.log_prob(x, case.xt, T, 1.0)))(jnp.asarray(TABLE.x1)))
    np.testing.assert_allclose(probs.sum(), 1, rtol=1e-5)
    draw = jax.jit(jax.vmap(lambda key: density.sample(key, case.xt, T, 1.0)))
    drawn = draw(jax.random.split(jax.random.key(4), 20_000))
    assert chi_square_score(number(np.asarray(drawn), 3), probs) < K
    other = densities(case)["reference" if name == "model" else "model"]
    wrong = np.exp(jax.jit(jax.vmap(lambda x: other.log_prob(x, case.xt, T, 1.0)))(jnp.asarray(TABLE.x1)))
    assert chi_square_score(number(np.asarray(drawn), 3), wrong) > 20


def test_gaussian_densities_integrate_to_one(x64):
    case = gaussian_case()
    x = np.linspace(-15, 15, 6001)
    belief = case.path.endpoint_belief(case.xt, T)
    centre = belief.mean + belief.scale * garbage(case.process)(case.xt, T)
    keys = jax.random.split(jax.random.key(5), 20_000)

    @jax.jit
    def tabulate():
        return {
            name: (
                jax.vmap(lambda y: jnp.exp(density.log_prob(y[None], case.xt, T, 1.0)))(jnp.asarray(x)),  # noqa: B023
                jax.vmap(lambda key: density.sample(key, case.xt, T, 1.0)[0])(keys),  # noqa: B023
            )
            for name, density in densities(case).items()
        }

    for name, (probs, drawn) in tabulate().items():
        np.testing.assert_allclose(probs.sum() * (x[1] - x[0]), 1, atol=1e-9)
        share = {"reference": 0.0, "model": 1.0, "defensive": 0.8}[name]

        def cdf(y, share=share):
            model_cdf = norm.cdf(y, centre.item(), belief.scale.item())
            return share * model_cdf + (1 - share) * norm.cdf(y, belief.mean.item(), belief.scale.item())

        assert kolmogorov_score(drawn, cdf) < 2


def test_a_product_computes_its_joint_prediction_once():
    product = ProductProcess((gaussian_case().process, masked_case().process))
    calls = []

    def predict(xt, t):
        calls.append(1)
        return garbage(product)(xt, t)

    density = model_density(product, predict)
    xt = (jnp.array([0.2]), jnp.array([3, 1, 3], jnp.int32))
    x1 = density.sample(jax.random.key(0), xt, T, 1.0)
    assert len(calls) == 1
    parts = garbage(product)(xt, T)
    expected = sum(p.endpoint_log_prob(y, b, x, T) for p, y, b, x in zip(product.processes, x1, parts, xt))
    np.testing.assert_allclose(density.log_prob(x1, xt, T, 1.0), expected, rtol=1e-6)


def test_a_defensive_mixture_bounds_the_weights():
    """`exp(log_ratio) <= 1 / p` where `p` is the share of the reference; the model alone has no such bound."""
    case = gaussian_case()

    def wrong(x, t):
        return jnp.array([3.0])

    densities = (model_density(case.process, wrong), reference_density(case.path))
    safe = from_density(case.path, defensive_mixture(densities, (0.9, 0.1)))
    bare = from_density(case.path, densities[0])
    largest = jax.jit(
        lambda p, key: jnp.max(jnp.exp(p.propose(key, case.xt, T, 1.0, 5000)[1])), static_argnums=0
    )
    assert largest(safe, jax.random.key(0)) <= 10 * (1 + 1e-4)
    assert largest(bare, jax.random.key(0)) > 10


# -- roll-outs --------------------------------------------------------------------------------------------


def test_which_processes_are_reversals():
    path = gaussian_path("condot", (1,))
    jump = MaskedProcess(MaskedPath(sites=2, num_states=3))
    flow, exact, other = FlowProcess(path), DiffusionProcess(path), DiffusionProcess(path, 2.0)
    yes = [exact, jump, MixtureProcess(MixturePath()), ProductProcess((exact, jump))]
    yes.append(SuperpositionProcess((exact, exact), (0.5, 0.5)))
    no = [flow, other, DiffusionProcess(path, jnp.asarray(1.0)), ProductProcess((flow, jump))]
    no.append(SuperpositionProcess((exact, flow), (0.5, 0.5)))
    for process, expected in [(p, True) for p in yes] + [(p, False) for p in no]:
        assert process.is_reversal is expected
        sampler = grid_sampler(process, time_grid(2))
        assert sampler.is_reversal is expected
        if expected:
            model_rollout(sampler, garbage(process))
        else:
            with pytest.raises(ValueError, match=r"^sampler: "):
                model_rollout(sampler, garbage(process))


def test_roll_outs_of_a_flow_are_biased_from_the_middle():
    """Why they are refused: a flow is a map, so its one value here has no standard error, and it is wrong."""
    case = gaussian_case()
    sampler = grid_sampler(FlowProcess(case.path), time_grid(3))

    def propose(key, xt, t, r, num):
        keys = jax.random.split(key, num)
        rollouts = jax.vmap(lambda k: sampler.sample(k, garbage(case.process), xt, t))(keys)
        return rollouts.x, rollouts.log_weight

    log_w, _ = weighted(case, Proposal(propose), num=4)
    assert np.ptp(log_w) < 1e-5
    assert abs(log_w[0]) > 0.02


def test_replay_is_unbiased_over_buffers():
    """New roll-outs for every estimate; forgetting their log-weights is seen."""
    case = masked_case()
    sampler = first_hitting_sampler(case.process)

    @jax.jit
    @jax.vmap
    def run(key):
        key_fill, key_draw = jax.random.split(key)
        stored = jax.vmap(lambda k: sampler.sample(k, garbage(case.process)))(jax.random.split(key_fill, 16))
        right = replay(case.path, *stored[:2]).propose(key_draw, case.xt, T, 1.0, 16)
        wrong = replay(case.path, stored.x, jnp.zeros(16)).propose(key_draw, case.xt, T, 1.0, 16)
        w, careless = (
            jnp.exp(jax.vmap(case.psi_fn)(x) + log_ratio - case.psi) for x, log_ratio in (right, wrong)
        )
        targets = jax.vmap(lambda x: case.process.target(case.xt, x, T))(right[0])
        return jnp.mean(w), jnp.tensordot(w, targets, axes=1) / 16, jnp.mean(careless)

    w, product, careless = (np.asarray(a) for a in run(jax.random.split(jax.random.key(6), 10_000)))
    assert z_score(w, 1) < K
    assert w.std() / 100 < 0.03
    assert z_score(product[:, [0, 2]], case.target[[0, 2]]) < 4.5
    assert z_score(careless, 1) > 6


def test_states_that_cannot_have_led_here_are_no_failures():
    """They have weight zero, and are not counted among those that are not finite."""
    case = masked_case()
    stored = jnp.asarray(TABLE.x1)
    proposal = replay(case.path, stored, jnp.full((27,), np.log(27.0)))

    @jax.jit
    def run(key):
        return snis(
            key,
            case.xt,
            T,
            process=case.process,
            proposal=proposal,
            psi_fn=case.psi_fn,
            num_proposals=3000,
        )

    result = run(jax.random.key(0))
    assert result.info.num_nonfinite == 0
    assert 100 < result.info.ess < 1200  # a third has the symbol of x_t
    np.testing.assert_allclose(result.target[1], [0, 1, 0], atol=1e-6)


def test_replay_on_a_gaussian_path():
    """Stored exact draws of the reference: weights `exp(psi)`."""
    case = gaussian_case()

    def one(key):
        key_fill, key_draw = jax.random.split(key)
        stored = MEAN + SCALE * jax.random.normal(key_fill, (64, 1))
        proposal = replay(case.path, stored, jnp.zeros(64))
        xr, log_ratio = proposal.propose(key_draw, case.xt, T, 1.0, 32)
        return jax.nn.logsumexp(jax.vmap(case.psi_fn)(xr) + log_ratio) - jnp.log(32.0)

    log_w = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(7), 8000))
    score, error = weight_score(log_w, case.psi)
    assert score < K
    assert error < 0.03


# -- annealing --------------------------------------------------------------------------------------------


def move_matrix(path, xt, states, t, s, r):
    """`sum_s bridge(x_s | x_t, x) propose(x' | x_s)` by enumeration, `[x, x']`, and the law of `propose`."""
    back = jax.vmap(lambda xs, xr: path.bridge_log_prob(xs, xt, xr, t, s, r), in_axes=(0, None))
    back = np.exp(jax.jit(jax.vmap(back, in_axes=(None, 0)))(states, states))  # [x, x_s]
    forth = jax.vmap(lambda xr, xs: path.propose_log_prob(xr, xs, s, r), in_axes=(0, None))
    forth = np.exp(jax.jit(jax.vmap(forth, in_axes=(None, 0)))(states, states))  # [x_s, x']
    law = np.exp(jax.jit(jax.vmap(lambda x: path.propose_log_prob(x, xt, t, r)))(states))
    return np.nan_to_num(back), np.nan_to_num(forth), law


@pytest.mark.parametrize("r", [0.8, 1.0])
@pytest.mark.parametrize(
    "path",
    [
        MaskedPath(sites=2, num_states=2),
        MixturePath(prior=jnp.array([0.5, 0.2, 0.3]), sites=2, num_states=3),
    ],
    ids=["masked", "mixture"],
)
def test_moves_are_reversible_under_the_reference(path, r, x64):
    masked = isinstance(path, MaskedPath)
    states = jnp.asarray(grid(3, 2))
    xt = jnp.array([2, 1], jnp.int32)
    back, forth, law = move_matrix(path, xt, states, 0.2, 0.55, r)
    if masked:  # states that x_t excludes, and masks at r = 1, have no law to speak of
        kept = [i for i, x in enumerate(np.asarray(states)) if x[1] == 1 and (r < 1 or x[0] < 2)]
        middle = [i for i, x in enumerate(np.asarray(states)) if x[1] == 1]
        back, forth, law = back[np.ix_(kept, middle)], forth[np.ix_(middle, kept)], law[kept]
    move = back @ forth
    np.testing.assert_allclose(law.sum(), 1, atol=1e-12)
    np.testing.assert_allclose(move.sum(1), 1, atol=1e-12)
    flow = law[:, None] * move
    np.testing.assert_allclose(flow, flow.T, atol=1e-13)
    tilted = law * np.arange(1, len(law) + 1)  # under another law it is not
    assert np.abs(tilted[:, None] * move - (tilted[:, None] * move).T).max() > 1e-3


@pytest.mark.parametrize("case_name", CASES)
def test_moves_leave_their_tempered_posterior_alone(case_name):
    """Exact draws at `beta`, three moves, the same law; moves that accept everything are seen to change it."""
    case, beta, num = CASES[case_name](), 0.6, 20_000
    rng = np.random.default_rng(0)
    if case_name == "gaussian":
        grid_x = np.linspace(-12, 12, 200_001)
        psi = np.asarray(jax.vmap(lambda x: case.psi_fn(x[None]))(jnp.asarray(grid_x, float)), np.float64)
        belief = case.path.endpoint_belief(case.xt, T)
        density = norm.pdf(grid_x, belief.mean.item(), belief.scale.item()) * np.exp(beta * psi)
        steps = np.cumsum(density) / density.sum()
        start = np.interp(rng.uniform(size=(num, 1)), steps, grid_x)

        def score(x):
            return kolmogorov_score(np.asarray(x)[:, 0], lambda y: np.interp(y, grid_x, steps)) / 2 * K
    else:
        log_law = jax.vmap(lambda x: case.path.propose_log_prob(x, case.xt, T) + beta * case.psi_fn(x))
        law = np.exp(np.asarray(log_law(jnp.asarray(TABLE.x1)), np.float64))
        law = law / law.sum()
        start = TABLE.x1[rng.choice(len(law), size=num, p=law)]

        def score(x):
            return chi_square_score(number(np.asarray(x), 3), law)

    def moved(target_psi, key, x):
        def step(carry, key_j):
            x, value = carry
            return posterior_move(
                case.path, key_j, case.xt, x, value, target_psi, beta, T, 1.0, refresh=0.5
            ), None

        (x, _), _ = jax.lax.scan(step, (x, target_psi(x)), jax.random.split(key, 3))
        return x

    keys, start = jax.random.split(jax.random.key(8), num), jnp.asarray(start)
    start = start.astype(float if case_name == "gaussian" else jnp.int32)
    assert score(start) < K

    @jax.jit
    @jax.vmap
    def both(key, x):
        return moved(lambda x: case.psi_fn(x, 1.0), key, x), moved(
            lambda x: 0.0 * case.psi_fn(x, 1.0), key, x
        )

    kept, careless = both(keys, start)
    assert score(kept) < K
    assert np.mean(np.any(np.asarray(kept) != np.asarray(start), axis=1)) > 0.3
    assert score(careless) > 10


def test_annealing_raises_the_effective_sample_size():
    """The more temperatures the better; one is the reference posterior."""
    case = masked_case()
    steep = case._replace(psi_fn=lambda x, r=1.0: 3.0 * case.psi_fn(x, r))
    ess = []
    for num_temperatures in (1, 8, 64):
        proposal = annealed(case.path, steep.psi_fn, num_temperatures=num_temperatures, refresh=0.9)
        ess.append(ess_fraction(weighted(steep, proposal, num=4000)[0]))
    weights = np.exp(3.0 * TABLE.psi[number(TABLE.x1[TABLE.x1[:, 1] == 1], 4)])  # equally likely completions
    pairs = 2 / (1 + np.mean(weights**2) / np.mean(weights) ** 2)  # the ESS of means of two
    assert abs(ess[0] - pairs) < 0.05
    assert ess[0] < ess[1] - 0.05
    assert ess[2] > 0.9


def test_annealing_bootstraps():
    """`r < 1` with the exact psi: unbiased."""
    case = masked_case()
    proposal = annealed(case.path, TABLE.psi_fn, num_temperatures=3, refresh=0.4)
    xr, log_ratio = jax.jit(lambda key: proposal.propose(key, case.xt, T, 0.7, 20_000))(jax.random.key(9))
    assert np.mean(xr == 3) > 0.1
    score, error = weight_score(jax.jit(jax.vmap(TABLE.psi_fn))(xr) + log_ratio, case.psi)
    assert score < K
    assert error < 0.03


class NotMarkov(GaussianPath):
    is_markov = False


def test_bad_arguments_are_refused():
    case = masked_case()
    key = jax.random.key(0)
    reference = reference_density(case.path)
    for build, message in [
        (lambda: defensive_mixture((reference,), (0.5, 0.5)), "^probs: expected one"),
        (lambda: defensive_mixture((), ()), "^probs: expected one"),
        (lambda: defensive_mixture((reference, reference), (0.5, 0.6)), "^probs: expected positive"),
        (lambda: defensive_mixture((reference, reference), (1.5, -0.5)), "^probs: expected positive"),
        (lambda: annealed(case.path, case.psi_fn, num_temperatures=0), "^num_temperatures: "),
        (lambda: annealed(case.path, case.psi_fn, num_temperatures=2, refresh=1.0), "^refresh: "),
        (lambda: annealed(NotMarkov(None), case.psi_fn, num_temperatures=2), "^path: "),
        (lambda: replay(case.path, jnp.zeros((4, 3), jnp.int32), jnp.zeros(3)), "^buffer_log_weight: "),
        (lambda: replay(case.path, case.xt[None], jnp.zeros(1)).propose(key, case.xt, T, 0.7, 2), "^r: "),
        (lambda: model(case).sample(key, case.xt, T, 0.7), "^r: "),
        (lambda: model(case).log_prob(case.xt, case.xt, T, 0.7), "^r: "),
        (lambda: rollout(case).propose(key, case.xt, T, 0.7, 2), "^r: "),
    ]:
        with pytest.raises(ValueError, match=message):
            build()
