"""Objectives turn buffered states into regression examples: the right target, weight and diagnostics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from egmjax.estimators import psi_from_energy
from egmjax.proposals import reference_posterior
from egmjax.training import Context, multispin_objective, snis_objective, weighted_objective
from tests.training.cases import KINDS, parts, target_of

BATCH = 6
TIMES = jnp.linspace(0.05, 0.9, BATCH)


def no_network(params, xt, t):
    raise AssertionError("examples of these objectives do not need the network")


def examples_of(objective):
    """`(key, x1, t, temper) -> (examples, info)`, jitted, without parameters."""

    @jax.jit
    def examples(key, x1, t, temper):
        return objective.examples(key, Context(None, temper, jnp.zeros((), jnp.int32)), x1, t)

    return examples


def batch(kind):
    """Process, `psi` and a batch of data of the target."""
    process, _, _ = parts(kind)
    target = target_of(kind)
    x1 = target.sample(jax.random.key(4), BATCH)
    return process, psi_from_energy(target.energy, process.path), x1


@pytest.mark.parametrize("kind", KINDS)
def test_weighted_examples_are_conditional_targets(kind):
    process, _, x1 = batch(kind)
    objective = weighted_objective(process, no_network)
    assert objective.weighted
    assert objective.num_energies == 0
    examples, info = examples_of(objective)(jax.random.key(1), x1, TIMES, jnp.asarray(0.3))
    assert info == {}
    np.testing.assert_array_equal(examples.t, TIMES)
    np.testing.assert_array_equal(examples.weight, np.ones(BATCH))
    at = lambda tree, i: jax.tree.map(lambda a: a[i], tree)  # noqa: E731
    for i in range(BATCH):
        expected = process.target(at(examples.xt, i), at(x1, i), TIMES[i], 1.0)
        for a, b in zip(jax.tree.leaves(at(examples.target, i)), jax.tree.leaves(expected)):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", ["weighted", "snis"])
def test_noised_states_follow_the_path(objective):
    """At time t a site is a mask with probability 1 - t, and shows the symbol of its x1 otherwise."""
    process, _, _ = parts("masked")
    psi_fn = psi_from_energy(target_of("masked").energy, process.path)
    num, t = 3000, 0.3
    x1 = jax.random.bernoulli(jax.random.key(0), 0.5, (num, 9)).astype(jnp.int32)
    chosen = (
        weighted_objective(process, no_network)
        if objective == "weighted"
        else snis_objective(process, no_network, reference_posterior(process.path), psi_fn, num_proposals=1)
    )
    examples, _ = examples_of(chosen)(jax.random.key(1), x1, jnp.full((num,), t), jnp.asarray(1.0))
    xt = np.asarray(examples.xt)
    known = xt != 2
    np.testing.assert_array_equal(xt[known], np.asarray(x1)[known])
    assert abs(known.mean() - t) < 5 * np.sqrt(t * (1 - t) / known.size)


@pytest.mark.parametrize("kind", KINDS)
def test_snis_examples(kind):
    process, psi_fn, x1 = batch(kind)
    objective = snis_objective(
        process, no_network, reference_posterior(process.path), psi_fn, num_proposals=50
    )
    assert not objective.weighted
    assert objective.num_energies == 50
    examples, info = examples_of(objective)(jax.random.key(1), x1, TIMES, jnp.asarray(1.0))
    np.testing.assert_array_equal(examples.weight, np.ones(BATCH))
    assert int(info["num_nonfinite"]) == 0
    assert 1 / 50 <= float(info["snis_ess"]) <= 1 + 1e-6
    assert 1 / 50 <= float(info["snis_largest_weight"]) <= 1 + 1e-6
    shape = jax.tree.map(lambda a: a.shape[1:], examples.target)
    assert shape == process.prediction_shape()


def test_snis_agrees_with_the_exact_denoiser():
    """Given all spins but one the posterior is known by hand: P(up) = 1 / (1 + exp(E_up - E_down))."""
    process, _, _ = parts("masked")
    target = target_of("masked")
    psi_fn = psi_from_energy(target.energy, process.path)
    objective = snis_objective(
        process, no_network, reference_posterior(process.path), psi_fn, num_proposals=20_000
    )
    up = jnp.ones((9,), dtype=jnp.int32).at[2].set(0).at[7].set(0)
    down = up.at[4].set(0)
    exact = 1 / (1 + np.exp(float(target.energy(up) - target.energy(down))))
    # just before the end, almost every site is known
    many = jnp.broadcast_to(up, (64, 9))
    examples, _ = examples_of(objective)(jax.random.key(3), many, jnp.full((64,), 0.9), jnp.asarray(1.0))
    only = np.flatnonzero(np.asarray(examples.xt == 2).sum(1) * np.asarray(examples.xt[:, 4] == 2) == 1)
    assert len(only) > 0
    got = np.asarray(examples.target)[only, 4, 1]
    error = np.sqrt(exact * (1 - exact) / 20_000)
    assert np.abs(got - exact).max() < 5 * error


def test_temper_scales_psi():
    """`temper = 0` makes all weights equal; in between, ESS is that of `temper * psi`."""
    process, psi_fn, x1 = batch("masked")
    proposal = reference_posterior(process.path)
    objective = snis_objective(process, no_network, proposal, psi_fn, num_proposals=40)
    jitted = examples_of(objective)
    run = lambda temper: jitted(jax.random.key(5), x1, TIMES, jnp.asarray(temper))  # noqa: E731
    _, flat = run(0.0)
    np.testing.assert_allclose(flat["snis_ess"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(flat["snis_largest_weight"], 1 / 40, rtol=1e-5)
    half_energy = snis_objective(
        process, no_network, proposal, lambda x, r: 0.5 * psi_fn(x, r), num_proposals=40
    )
    tempered, info = run(0.5)
    scaled, info_scaled = examples_of(half_energy)(jax.random.key(5), x1, TIMES, jnp.asarray(1.0))
    np.testing.assert_allclose(tempered.target, scaled.target, rtol=1e-5)
    np.testing.assert_allclose(info["snis_ess"], info_scaled["snis_ess"], rtol=1e-5)
    assert run(1.0)[1]["snis_ess"] < info["snis_ess"] < flat["snis_ess"]


@pytest.mark.parametrize(("bad", "temper"), [(np.nan, 0.5), (np.inf, 1.0), (-np.inf, 0.5), (-np.inf, 0.0)])
def test_states_without_a_finite_energy_have_weight_zero(bad, temper):
    process, _, x1 = batch("masked")

    def psi_fn(x, r):  # the first site up: no finite energy
        return jnp.where(x[0] == 1, bad, 0.0)

    objective = snis_objective(
        process, no_network, reference_posterior(process.path), psi_fn, num_proposals=64
    )
    x1 = x1.at[:, 0].set(jnp.asarray([1, 1, 1, 0, 0, 0]))
    times = jnp.full((BATCH,), 0.999)  # all sites known
    examples, info = examples_of(objective)(jax.random.key(1), x1, times, jnp.asarray(temper))
    assert np.all(np.asarray(examples.xt) != 2)
    np.testing.assert_array_equal(examples.weight, [0, 0, 0, 1, 1, 1])
    assert int(info["num_nonfinite"]) == 3 * 64
    assert np.all(np.isfinite(examples.target))


@pytest.mark.parametrize("num_proposals", [0, -5])
def test_proposals_must_be_positive(num_proposals):
    process, psi_fn, _ = batch("masked")
    with pytest.raises(ValueError, match="num_proposals"):
        snis_objective(
            process, no_network, reference_posterior(process.path), psi_fn, num_proposals=num_proposals
        )


def test_multispin_examples_are_those_of_snis():
    """The same noised states, and targets of one law: they differ by what 4096 proposals leave open."""
    process, psi_fn, x1 = batch("masked")
    energy_fn = target_of("masked").multispin_energy
    packed = multispin_objective(process, no_network, energy_fn, num_proposals=4096)
    plain = snis_objective(process, no_network, reference_posterior(process.path), psi_fn, num_proposals=4096)
    assert packed.num_energies == plain.num_energies
    assert packed.weighted == plain.weighted
    found, info = examples_of(packed)(jax.random.key(2), x1, TIMES, jnp.asarray(0.5))
    wanted, other = examples_of(plain)(jax.random.key(2), x1, TIMES, jnp.asarray(0.5))
    np.testing.assert_array_equal(found.xt, wanted.xt)
    np.testing.assert_allclose(found.target, wanted.target, atol=0.08)
    assert set(info) == set(other)
    hot, _ = examples_of(packed)(jax.random.key(2), x1, TIMES, jnp.asarray(0.0))
    assert np.max(np.abs(hot.target - found.target)) > 0.1, "the temper matters"


def test_benchmarks_take_the_faster_form(tmp_path):
    """`--objective snis` on spins never evaluates the energy state by state."""
    from benchmarks.options import IsingOptions
    from benchmarks.setups import make_objective

    process, _, x1 = batch("masked")

    def one_by_one(x, r=1.0):
        raise AssertionError("a single state's energy")

    options = IsingOptions(out=tmp_path, objective="snis", num_proposals=64)
    networks = type("Networks", (), {"generator": staticmethod(no_network)})
    energy_fn = target_of("masked").multispin_energy
    objective = make_objective(options, process, None, networks, one_by_one, one_by_one, energy_fn)
    jax.eval_shape(examples_of(objective), jax.random.key(0), x1, TIMES, jnp.asarray(1.0))
