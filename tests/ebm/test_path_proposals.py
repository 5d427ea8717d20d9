"""Roll-outs in random order as global moves: an enumerated law stays, unless the path of the state held is not redrawn.

The model is a table of random logits, one row for every context, so that different orders give different densities.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from egmjax import ebm
from egmjax.networks import PairEnergy
from egmjax.paths import GaussianPath, Linear, MaskedPath, Ordered, Trigonometric
from egmjax.processes import DiffusionProcess, MaskedProcess, ProductProcess
from egmjax.proposals import Density
from egmjax.simulators import first_hitting_sampler, grid_sampler, time_grid
from egmjax.states import Categorical, Real
from egmjax.targets import Ising
from egmjax.training import data_source, fit
from tests.core.checks import chi_square_score, z_score
from tests.core.exact import Table, number

TABLE = Table(2, 3, seed=1, spread=1.0)
STATES = TABLE.x1
LOGITS = np.random.default_rng(2).normal(size=(27, 3, 2)) * 1.2
NUM_CHAINS, NUM_STEPS = 20_000, 8


def predict(x, t):
    return jnp.asarray(LOGITS, dtype=float)[number(x, 3)]


def path_log_probs(x):
    """`log q(x, order) + log 3!` for every order, by hand."""
    log_p = LOGITS - logsumexp(LOGITS, axis=-1, keepdims=True)
    found = []
    for order in itertools.permutations(range(3)):
        context, total = np.full(3, 2), 0.0
        for site in order:
            total += log_p[number(context, 3), site, x[site]]
            context[site] = x[site]
        found.append(total)
    return np.array(found)


def rollouts(schedule=None):
    process = MaskedProcess(MaskedPath(schedule or Linear(), sites=3, num_states=2))
    return ebm.rollout_proposal(first_hitting_sampler(process), process.path, predict)


UNIFORM = Density(
    lambda key, xt, t, r: jax.random.randint(key, (3,), 0, 2),
    lambda xr, xt, t, r: jnp.asarray(-3 * np.log(2.0)),
)
ANY_ORDER = rollouts()
DEFENDED = ebm.defended(ANY_ORDER, UNIFORM, 0.3)
FROZEN = ANY_ORDER._replace(log_ratio=lambda key, x: ANY_ORDER.log_ratio(jax.random.key(3), x))
MOVES = {
    "metropolis": lambda: ebm.independence_metropolis(ANY_ORDER),
    "i-sir defended": lambda: ebm.i_sir(DEFENDED, 3),
    "gibbs": lambda: ebm.gibbs_sweep(Categorical(3, 2)),
    "frozen path": lambda: ebm.i_sir(FROZEN, 3),
}


@pytest.mark.parametrize("name", MOVES)
def test_leave_the_law_alone(name):
    """Chains from exact draws; "frozen path", the seeded fault, weighs the state held along one order for ever."""
    start = np.random.default_rng(0).choice(8, NUM_CHAINS, p=TABLE.p1)
    move = MOVES[name]()

    def step(x, key):
        return move(key, x, lambda y: -TABLE.energy(y))

    def chain(x, key):
        return jax.lax.scan(step, x, jax.random.split(key, NUM_STEPS))

    keys = jax.random.split(jax.random.key(1), NUM_CHAINS)
    x, info = jax.jit(jax.vmap(chain))(jnp.asarray(STATES[start]), keys)
    score = abs(chi_square_score(number(np.asarray(x), 2), TABLE.p1))
    if name == "frozen path":
        assert score > 20
        return
    assert score < 4
    assert 0.1 < float(np.mean(info.acceptance)) < 0.95
    if name != "gibbs":  # the first step's, as chains start from exact draws
        assert z_score(np.exp(np.asarray(info.log_weight[:, 0, 0], np.float64)), np.exp(TABLE.log_z)) < 4
        inverse = np.exp(-np.asarray(info.held_log_weight[:, 0], np.float64))
        assert z_score(inverse, np.exp(-TABLE.log_z)) < 4


def test_ratio_is_the_paths_and_bounds_the_density(x64):
    """At a state, over keys: the values are those of the six orders, equally often; a fixed order has one."""
    x = STATES[5]
    exact = path_log_probs(x)
    keys = jax.random.split(jax.random.key(0), 3000)
    ratio = np.asarray(jax.vmap(lambda k: ANY_ORDER.log_ratio(k, jnp.asarray(x)))(keys))
    nearest = np.abs(-ratio[:, None] - exact).argmin(1)
    np.testing.assert_allclose(-ratio, exact[nearest], atol=1e-6)
    assert chi_square_score(nearest, np.full(6, 1 / 6)) < 4
    assert ratio.mean() > -logsumexp(exact - np.log(6))  # Jensen: the loss is an upper bound of -log q
    ordered = rollouts(Ordered.from_rank([0, 1, 2]))
    log_q = np.array([-ordered.log_ratio(keys[0], jnp.asarray(y)) for y in STATES])
    assert np.exp(log_q).sum() == pytest.approx(1.0, abs=1e-6)
    assert log_q[5] == pytest.approx(exact[0], abs=1e-6)
    defended = DEFENDED.log_ratio(keys[1], jnp.asarray(x))
    mixed = 0.7 * np.exp(-ANY_ORDER.log_ratio(keys[1], jnp.asarray(x))) + 0.3 / 8
    assert float(defended) == pytest.approx(-np.log(mixed), abs=1e-6)


def test_masses_by_enumeration_and_by_rollouts():
    """Ising's log Z and modes by enumeration; the table's by importance sampling with roll-outs."""
    target = Ising(3, beta=0.5, field=0.1)
    found = ebm.enumerated_masses(lambda x: -target.energy(x), target.mode_index, 3, target.space)
    assert found.log_z == pytest.approx(target.log_z, abs=1e-5)
    np.testing.assert_allclose(found.mass, target.mode_weights, atol=1e-6)
    sampled = ebm.sampled_masses(
        jax.random.key(0), lambda x: -TABLE.energy(x), ANY_ORDER, lambda x: x[0], 2, 20_000
    )
    exact = np.bincount(STATES[:, 0], weights=TABLE.p1)
    assert np.all(np.abs(sampled.mass - exact) < 4 * sampled.stderr)
    assert abs(sampled.log_z - TABLE.log_z) < 4 * sampled.log_z_stderr


PAIRS = (Real((1,)), Categorical(2, 2))  # a real number whose law depends on two symbols
PROBS, MEANS, WIDTHS = (
    np.array([0.1, 0.2, 0.3, 0.4]),
    np.array([-1.0, 0.0, 0.5, 1.5]),
    np.array([0.5, 1, 0.7, 0.4]),
)
LOG_Z = 0.7


def pair_log_density(state):
    x, y = state
    probs, means, widths = (jnp.asarray(a, float)[2 * y[0] + y[1]] for a in (PROBS, MEANS, WIDTHS))
    z = (x[0] - means) / widths
    return LOG_Z + jnp.log(probs) - 0.5 * z**2 - jnp.log(widths) - 0.5 * np.log(2 * np.pi)


def pair_rollouts():
    """Masked jumps and a diffusion at once, by a prediction that is wrong but couples the two."""
    real = GaussianPath(Trigonometric(), mean=0.5, scale=1.2, shape=(1,))
    symbols = MaskedPath(Linear(), sites=2, num_states=2)
    process = ProductProcess((DiffusionProcess(real), MaskedProcess(symbols)))

    def predict(state, t):
        x, y = state
        shown = jnp.sum(jnp.where(y == 2, 0.0, 2.0 * y - 1.0))
        logit = jnp.full((2, 1), 0.3 * x[0])
        return 0.4 * jnp.tanh(shown)[None], jnp.concatenate([-logit, logit], axis=1)

    return ebm.rollout_proposal(grid_sampler(process, time_grid(4)), process.path, predict)


PAIR_ROLLOUTS = pair_rollouts()
PAIR_WIDE = Density(
    lambda key, xt, t, r: (2.0 * jax.random.normal(key, (1,)), jax.random.randint(key, (2,), 0, 2)),
    lambda state, xt, t, r: -0.125 * state[0][0] ** 2 - np.log(8.0) - 0.5 * np.log(2 * np.pi),
)
PAIR_MOVES = {
    "i-sir by roll-outs": lambda spoilt: ebm.i_sir(ebm.defended(spoilt, PAIR_WIDE, 0.2), 3),
    "i-sir by a density": lambda spoilt: ebm.i_sir(PAIR_WIDE, 3),
    "langevin and gibbs": lambda spoilt: ebm.mala_gibbs(PAIRS, 0.2, num_mala=2),
}


@pytest.mark.parametrize("name", PAIR_MOVES)
def test_pairs_of_reals_and_symbols(name):
    """Chains from exact draws, in cells of equal probability; the seeded fault forgets the reference of the reals in
    the weights of fresh roll-outs.
    """
    rng = np.random.default_rng(0)
    index = rng.choice(4, NUM_CHAINS, p=PROBS)
    reals = MEANS[index] + WIDTHS[index] * rng.normal(size=NUM_CHAINS)
    start = (jnp.asarray(reals[:, None], float), jnp.asarray(np.stack(np.divmod(index, 2), 1), jnp.int32))
    keys = jax.random.split(jax.random.key(1), NUM_CHAINS)

    @jax.jit
    def run(forgotten):
        def sample(key):
            state, ratio = PAIR_ROLLOUTS.sample(key)
            return state, ratio - forgotten * 0.5 * ((state[0][0] - 0.5) / 1.2) ** 2

        move = PAIR_MOVES[name](PAIR_ROLLOUTS._replace(sample=sample))

        def chain(state, key):
            return jax.lax.scan(lambda s, k: move(k, s, pair_log_density), state, jax.random.split(key, 4))

        return jax.vmap(chain)(start, keys)

    def score(x, y):
        index = np.asarray(2 * y[:, 0] + y[:, 1])
        u = norm.cdf((np.asarray(x, np.float64)[:, 0] - MEANS[index]) / WIDTHS[index])
        return abs(chi_square_score(5 * index + np.minimum((5 * u).astype(int), 4), np.repeat(PROBS, 5)))

    state, info = run(0.0)
    assert score(*state) < 4
    assert 0.1 < float(np.mean(info.acceptance)) < 0.99
    if name != "langevin and gibbs":
        assert z_score(np.exp(np.asarray(info.log_weight[:, 0, 0], np.float64)), np.exp(LOG_Z)) < 4
    if name == "i-sir by roll-outs":
        assert score(*run(1.0)[0]) > 20


def test_masses_of_pairs():
    """All symbols times quadrature, against the closed form."""

    def cell(state):
        return 2 * state[1][0] + state[1][1]

    grid = ebm.quadrature_masses(pair_log_density, cell, 4, [-8], [8], 200, symbols=PAIRS[1])
    np.testing.assert_allclose(grid.mass, PROBS, atol=1e-6)
    assert grid.log_z == pytest.approx(LOG_Z, abs=1e-6)


def test_the_step_of_any_local_move_is_adapted():
    """With a step `local` is the move of a step; a step too short is accepted too often and grows."""
    negatives = ebm.chain_negatives(
        lambda params, state: pair_log_density(state),
        lambda params, key: PAIR_WIDE.sample(key, None, 0.0, 1.0),
        step_size=1e-3,
        num_chains=50,
        local=lambda step: ebm.mala_gibbs(PAIRS, step),
    )
    state = negatives.init(jax.random.key(0), None)
    new, metrics = jax.jit(negatives.advance)(jax.random.key(1), state, None, None)
    assert metrics["acceptance_local"] > 0.9
    assert new.log_step > state.log_step
    assert metrics["step_size"] == pytest.approx(1e-3, rel=1e-5)


TORUS = Ising(3, beta=1.0, field=0.077)  # signs .80 and .20, which Gibbs sweeps do not exchange


def trainer(balanced, **options):
    """Maximum likelihood of a lattice's fields and bonds; the sampler is a linear denoiser in random order."""
    space = TORUS.space
    energy = PairEnergy(3)
    path = MaskedPath(Linear(), sites=9, num_states=2)
    sampler = first_hitting_sampler(MaskedProcess(path))

    def log_density(params, x):
        return -energy.apply(params["energy"], x)

    def paths(params):
        def predict(x, t):
            logit = params["bias"] + params["weight"] @ jnp.where(x == 2, 0.0, 2.0 * x - 1.0)
            return jnp.stack([-logit, logit], axis=-1)

        return ebm.rollout_proposal(sampler, path, predict)

    settings = (
        {"proposal_fn": lambda p: paths(p["sampler"]), "global_move": lambda q: ebm.i_sir(q, 4)}
        if balanced
        else {}
    )
    negatives = ebm.chain_negatives(
        log_density,
        lambda params, key: jax.random.randint(key, (9,), 0, 2),
        num_chains=100,
        num_local=1,
        local=ebm.gibbs_sweep(space),
        **settings,
    )
    data = np.asarray(TORUS.sample(jax.random.key(0), 20_000))
    made = ebm.likelihood_trainer(
        lambda params, x: energy.apply(params, x),
        data_source(data, space),
        negatives,
        optax.adam(optax.cosine_decay_schedule(0.05, 400, 0.02)),
        sampler_loss_fn=(lambda params, key, x: paths(params).log_ratio(key, x)) if balanced else None,
        batch_size=100,
        updates_per_iteration=100,
        ema_decay=0.98,
        **options,
    )
    params = {"energy": energy.init(jax.random.key(1), jnp.zeros(9, int))}
    if balanced:
        params["sampler"] = {"weight": jnp.zeros((9, 9)), "bias": jnp.zeros(9)}
    return made, made.init(jax.random.key(2), params), log_density


@pytest.mark.parametrize("balanced", [pytest.param(True, marks=pytest.mark.slow), False])
def test_lattice_learns_masses_with_the_sampler_alone(balanced):
    """Total variation of the model's masses of the two signs, enumerated; without global moves they are lost."""
    made, state, log_density = trainer(balanced)
    result = fit(made, state, 4)
    found = ebm.enumerated_masses(
        lambda x: log_density(result.state.ema_params, x), TORUS.mode_index, 3, TORUS.space
    )
    error = 0.5 * np.abs(found.mass - TORUS.mode_weights).sum()
    if not balanced:
        assert error > 0.1
        return
    assert error < 0.04  # hundred chains fluctuate by .04 an update, averaged over some ten independent ones
    last = result.history[-1]
    assert last["acceptance_global"] > 0.3
    assert last["log_z"] == pytest.approx(found.log_z, abs=0.2)
    assert last["log_z_upper"] == pytest.approx(found.log_z, abs=0.2)


def test_bad_input():
    for call, name in (
        (lambda: ebm.defended(ANY_ORDER, UNIFORM, 1.0), "share"),
        (lambda: ebm.gibbs_sweep(Real((2,))), "space"),
        (lambda: ebm.mala_gibbs(Categorical(2, 2), 0.1), "space"),
        (lambda: ebm.mala_gibbs(PAIRS, 0.0), "step_size"),
        (lambda: ebm.chain_negatives(lambda p, x: x, lambda p, key: key), "step_size"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: "):
            call()
