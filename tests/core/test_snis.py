"""The streaming estimate against the exact posterior of an enumerated target.

Statistical tolerance: 4 standard errors with fixed keys unless stated.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.estimators import psi_from_energy, snis
from egmjax.paths import MaskedPath
from egmjax.processes import FlowProcess, MaskedProcess, ProductProcess
from egmjax.proposals import Density, Proposal, from_density, model_rollout, reference_posterior
from egmjax.simulators import first_hitting_sampler
from tests.core.checks import weight_score, z_score
from tests.core.exact import Mixture, Table, number
from tests.core.registry import garbage, gaussian_path

MODEL = Table(3, 3, seed=6)
PATH = MaskedPath(sites=3, num_states=3)
PROCESS = MaskedProcess(PATH)
XT = jnp.array([3, 1, 3], jnp.int32)
ROW = int(number(XT, 4))
T = 0.3


def estimate(
    key, r=1.0, *, num=64, chunk=64, proposal=None, psi_fn=MODEL.psi_fn, xt=XT, t=T, process=PROCESS
):
    return snis(
        key,
        xt,
        t,
        r,
        process=process,
        proposal=proposal or reference_posterior(process.path),
        psi_fn=psi_fn,
        num_proposals=num,
        chunk_size=chunk,
    )


def many(seed, repeats, **kwargs):
    keys = jax.random.split(jax.random.key(seed), repeats)
    return jax.jit(jax.vmap(lambda k: estimate(k, **kwargs)))(keys)


def tilted(path=PATH):
    """A proposal that prefers high symbols, with its density."""
    logits = jnp.array([0.0, 0.7, -0.4])

    def sample(key, xt, t, r):
        drawn = jax.random.categorical(key, logits, shape=xt.shape).astype(xt.dtype)
        return jnp.where(xt == 3, drawn, xt)

    def log_prob(xr, xt, t, r):
        return jnp.sum(jnp.where(xt == 3, jax.nn.log_softmax(logits)[xr], 0.0))

    return from_density(path, Density(sample, log_prob))


PROPOSALS = {
    "reference": lambda: reference_posterior(PATH),
    "from_density": tilted,
    "model_rollout": lambda: model_rollout(first_hitting_sampler(PROCESS), garbage(PROCESS)),
}


@pytest.mark.parametrize("name", PROPOSALS)
def test_estimate_converges_to_the_posterior(name):
    """The root mean square error falls as `K^{-1/2}`: by 8 for a factor of 64, within a factor of 1.6."""
    exact = MODEL.denoiser[ROW]
    errors = []
    for num in (64, 4096) if name == "reference" else (4096,):
        target = np.asarray(many(0, 40, num=num, proposal=PROPOSALS[name]()).target, np.float64)
        assert target.shape == (40, 3, 3)
        errors.append(np.sqrt(np.mean((target - exact) ** 2)))
    assert errors[-1] < 0.02
    assert len(errors) == 1 or 8 / 1.6 < errors[0] / errors[1] < 8 * 1.6
    assert z_score(target[:, [0, 2]], exact[[0, 2]]) < 4.5  # the largest of six entries
    np.testing.assert_allclose(target[:, 1], np.tile([0.0, 1.0, 0.0], (40, 1)), atol=1e-5)


@pytest.mark.parametrize("name", PROPOSALS)
def test_normalizer_is_unbiased_on_the_scale_of_densities(name):
    """`E[exp(log_normalizer)] = exp(psi(x_t, t))` even at `K = 3`."""
    log_normalizer = many(1, 20_000, num=3, chunk=2, proposal=PROPOSALS[name]()).log_normalizer
    score, error = weight_score(log_normalizer, MODEL.psi[ROW])
    assert score < 4
    assert error < 0.02


def test_bootstrap_with_the_exact_psi_is_unbiased():
    """`r < 1`: the normaliser is unbiased for small `K`, the target converges to the same posterior."""
    few = jax.jit(jax.vmap(lambda k, r: estimate(k, r, num=3), in_axes=(0, None)))
    much = jax.jit(jax.vmap(lambda k, r: estimate(k, r, num=4000), in_axes=(0, None)))
    for r in (0.35, 0.6, 0.9):
        log_normalizer = few(jax.random.split(jax.random.key(2), 20_000), r).log_normalizer
        score, error = weight_score(log_normalizer, MODEL.psi[ROW])
        assert score < 4
        assert error < 0.02
        target = np.asarray(much(jax.random.split(jax.random.key(3), 100), r).target, np.float64)
        spread = target.std(0, ddof=1)
        error = np.abs(target.mean(0) - MODEL.denoiser[ROW])
        assert np.all(error < 4.5 * spread / 10 + 1e-3)  # bias O(1/K), below 1e-3 at K = 4000
        assert spread.max() < 0.15


@pytest.mark.parametrize("chunk", [7, 400])
def test_chunks_do_not_matter(chunk):
    """100 proposals in chunks that do not divide 100: one law, one count."""
    result = many(4 + chunk, 400, num=100, chunk=chunk)
    assert z_score(np.exp(np.asarray(result.log_normalizer)), np.exp(MODEL.psi[ROW])) < 4
    flat = many(99, 1, num=100, chunk=chunk, psi_fn=lambda x, r: jnp.zeros(()))
    np.testing.assert_allclose(flat.info.ess, 100, rtol=1e-5)
    np.testing.assert_allclose(flat.info.largest_weight, 0.01, rtol=1e-5)
    np.testing.assert_allclose(flat.log_normalizer, 0, atol=1e-5)


def test_diagnostics_match_a_plain_computation(x64):
    """Two chunks replayed by hand in numpy."""
    seen = estimate(jax.random.key(5), num=12, chunk=8)
    proposal = reference_posterior(PATH)
    draws = [proposal.propose(jax.random.fold_in(jax.random.key(5), i), XT, T, 1.0, 8)[0] for i in range(2)]
    xr = jnp.concatenate(draws)[:12]
    w = np.exp(np.asarray(jax.vmap(MODEL.psi_fn)(xr)))
    np.testing.assert_allclose(seen.info.ess, w.sum() ** 2 / (w**2).sum())
    np.testing.assert_allclose(seen.info.largest_weight, w.max() / w.sum())
    np.testing.assert_allclose(seen.log_normalizer, np.log(w.mean()))
    one_hot = np.asarray(xr)[:, :, None] == np.arange(3)
    np.testing.assert_allclose(seen.target, np.einsum("k,kis->is", w, one_hot) / w.sum(), atol=1e-12)


def test_no_finite_energy_gives_zeros_and_is_counted():
    @jax.jit
    def run(bad):
        return estimate(jax.random.key(0), num=10, chunk=4, psi_fn=lambda x, r: bad)

    for bad in (jnp.nan, -jnp.inf, jnp.inf):
        result = run(bad)
        assert result.info.ess == 0
        assert result.info.largest_weight == 0
        assert result.info.num_nonfinite == 10
        assert result.log_normalizer == -jnp.inf
        np.testing.assert_array_equal(result.target, 0)


def test_some_nan_energies_get_no_weight_and_are_counted():
    def psi_fn(x, r):
        return jnp.where(x[0] == 2, jnp.nan, MODEL.psi_fn(x, r))

    result = estimate(jax.random.key(1), num=20_000, psi_fn=psi_fn)
    assert abs(int(result.info.num_nonfinite) - 20_000 / 3) < 4 * np.sqrt(20_000 * 2 / 9)
    posterior = MODEL.posterior[ROW] * (MODEL.x1[:, 0] != 2)
    exact = np.einsum("k,kis->is", posterior / posterior.sum(), MODEL.x1[:, :, None] == np.arange(3))
    np.testing.assert_allclose(result.target, exact, atol=0.03)  # 4 standard errors at ESS above 5000


def test_states_that_are_not_finite_do_not_poison_the_estimate():
    """As a roll-out whose map has folded: weight zero, counted, and without effect on the sum."""
    process = FlowProcess(gaussian_path("condot"))

    def propose(key, xt, t, r, num):
        xr = process.path.propose_many(key, xt, t, r, num)
        return xr.at[0].set(jnp.nan), jnp.zeros((num,)).at[0].set(jnp.nan)

    xt = jnp.array([0.1, 0.2])
    result = estimate(
        jax.random.key(0),
        process=process,
        proposal=Proposal(propose),
        xt=xt,
        psi_fn=lambda x, r: -jnp.sum(x**2),
    )
    assert result.info.num_nonfinite == 1
    assert np.all(np.isfinite(result.target))


@pytest.mark.parametrize("shift", [1e4, -1e4])
def test_energies_far_from_zero_are_safe(shift):
    @jax.jit
    def run(by):
        return estimate(jax.random.key(2), num=100, chunk=8, psi_fn=lambda x, r: MODEL.psi_fn(x, r) + by)

    plain, shifted = run(0.0), run(shift)
    np.testing.assert_allclose(shifted.target, plain.target, atol=2e-3)  # float32 resolves 1e-3 at 1e4
    np.testing.assert_allclose(shifted.log_normalizer - shift, plain.log_normalizer, atol=2e-3)
    np.testing.assert_allclose(shifted.info.ess, plain.info.ess, rtol=1e-2)


def test_flow_and_product_estimates_converge(x64):
    """A Gaussian mixture; and a product with one weight from the joint energy, here independent of the sites."""
    mixture = Mixture([[-1.0], [1.4]], [0.4, 0.7], [0.35, 0.65])
    path = gaussian_path("condot", (1,))
    flow, xt = FlowProcess(path), jnp.array([0.2])
    exact = mixture.residual(path)(xt, jnp.asarray(T))
    psi_fn = psi_from_energy(mixture.energy, path)
    target = np.asarray(many(7, 60, num=2000, process=flow, xt=xt, psi_fn=psi_fn).target)
    assert z_score(target, np.asarray(exact)) < 4.5

    product = ProductProcess((flow, PROCESS))
    joint = psi_from_energy(lambda x: mixture.energy(x[0]) + MODEL.energy(x[1]), product.path)
    real, symbols = many(8, 60, num=2000, process=product, xt=(xt, XT), psi_fn=joint).target
    assert z_score(real, np.asarray(exact)) < 4.5
    assert z_score(np.asarray(symbols)[:, [0, 2]], MODEL.denoiser[ROW][[0, 2]]) < 4.5


def test_bad_arguments_are_refused():
    key = jax.random.key(0)
    for kwargs, name in [
        ({"num": 0}, "num_proposals"),
        ({"chunk": 0}, "chunk_size"),
        ({"t": 0.5, "r": 0.5}, "r: times"),
        ({"t": 0.8, "r": 0.5}, "r: times"),
        ({"r": 0.5, "proposal": PROPOSALS["model_rollout"]()}, "r: a roll-out ends at r=1"),
    ]:
        with pytest.raises(ValueError, match=name):
            estimate(key, **kwargs)


def test_faults_are_detected():
    # the normaliser of r = 1 used for r < 1: psi that still holds the noised reference
    def wrong_psi(x, r):
        return MODEL.psi_fn(x, r) + PATH.log_reference(x, r)

    assert weight_score(many(2, 4000, r=0.6, num=3, psi_fn=wrong_psi).log_normalizer, MODEL.psi[ROW])[0] > 10
    # a proposal that forgets its density
    draw = tilted().propose
    careless = Proposal(lambda *args: (draw(*args)[0], jnp.zeros((args[-1],))))
    assert weight_score(many(1, 4000, num=3, proposal=careless).log_normalizer, MODEL.psi[ROW])[0] > 5


@pytest.mark.parametrize(
    ("sites", "given", "expected"), [(3, None, 128), (256, None, 128), (1024, None, 32), (1024, 7, 7)]
)
def test_chunks_go_with_the_size_of_a_state(sites, given, expected):
    process, asked = MaskedProcess(MaskedPath(sites=sites)), []

    def propose(key, xt, t, r, num):
        asked.append(num)
        return jnp.zeros((num, sites), jnp.int32), jnp.zeros(num)

    def one(key, xt):
        return snis(
            key,
            xt,
            0.5,
            process=process,
            proposal=Proposal(propose),
            psi_fn=lambda x, r: jnp.zeros(()),
            num_proposals=500,
            chunk_size=given,
        )

    jax.eval_shape(one, jax.random.key(0), jnp.full(sites, 2, jnp.int32))
    assert set(asked) == {expected}
