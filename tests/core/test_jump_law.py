"""Closed forms of jumps along Gaussian paths against quadrature, float64.

Tolerances are those of the trapezoid rule on a smooth integrand with kinks (1e-8) or of differences (1e-6).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from egmjax.paths import (
    MaximalCoupling,
    backward_jump_rate,
    backward_landing_cdf,
    backward_landing_density,
    backward_landing_ppf,
    conditional_coupling,
    jump_coordinates,
    jump_rate,
    landing_cdf,
    landing_density,
    landing_masses,
    landing_normalizer,
    landing_ppf,
    landing_roots,
    survival,
)
from egmjax.paths._intervals import interval_ppf, log_interval_mass
from tests.core.checks import kolmogorov_score
from tests.core.exact import slope
from tests.core.registry import GAUSSIAN_FORMS, gaussian_path

pytestmark = pytest.mark.slow  # compiles a lot

PULLS = np.array([-2.5, 0.0, 0.5, 1.0, 3.0])
U = np.linspace(0.001, 0.999, 41)
PUBLISHED = {0.0: 0.4839, 0.5: 0.5139, 1.0: 0.5999, 2.0: 0.8929, 3.0: 1.2591}  # Z(r), computed elsewhere


def polynomial(e, r):
    return (1 + r * e - e * e) * norm.pdf(e)


def test_normalizer_and_law(x64):
    for r in PULLS:
        roots = sorted(np.roots([-1.0, r, 1.0]))
        np.testing.assert_allclose(landing_roots(jnp.asarray(r)), roots, rtol=1e-12)
        total = quad(polynomial, *roots, args=(r,), epsabs=1e-13)[0]
        tails = [(-np.inf, roots[0]), (roots[1], np.inf)]
        away = -sum(quad(polynomial, *ends, args=(r,))[0] for ends in tails)
        np.testing.assert_allclose([landing_normalizer(jnp.asarray(r)), away], total, rtol=1e-8)
        for e in np.linspace(roots[0], roots[1], 5)[1:-1]:
            part = quad(polynomial, roots[0], e, args=(r,), epsabs=1e-13)[0] / total
            np.testing.assert_allclose(landing_cdf(jnp.asarray(e), jnp.asarray(r)), part, atol=1e-10)
        for e in (roots[0] - 0.7, roots[0] - 0.01):
            part = -quad(polynomial, -np.inf, e, args=(r,), epsabs=1e-13)[0] / total
            np.testing.assert_allclose(backward_landing_cdf(jnp.asarray(e), jnp.asarray(r)), part, atol=1e-8)
        for e in (roots[1] + 0.01, roots[1] + 0.7):
            part = 1 + quad(polynomial, e, np.inf, args=(r,), epsabs=1e-13)[0] / total
            np.testing.assert_allclose(backward_landing_cdf(jnp.asarray(e), jnp.asarray(r)), part, atol=1e-8)
    for r, value in PUBLISHED.items():
        np.testing.assert_allclose(landing_normalizer(jnp.asarray(r)), value, atol=5e-5)


def test_quantiles_invert(x64):
    r = jnp.asarray(PULLS)[:, None] + jnp.zeros((1, U.size))
    u = jnp.broadcast_to(jnp.asarray(U)[None], r.shape)
    np.testing.assert_allclose(landing_cdf(landing_ppf(u, r), r), u, atol=1e-12)
    np.testing.assert_allclose(backward_landing_cdf(backward_landing_ppf(u, r), r), u, atol=1e-12)


def test_bin_masses_sum_to_one_and_stay_right_where_centres_underflow(x64):
    edges = jnp.concatenate([jnp.array([-jnp.inf]), jnp.linspace(-1.0, 1.0, 257), jnp.array([jnp.inf])])
    for t in (0.3, 0.99, 0.9995):  # condot: e = (x - t z) / (1 - t)
        masses = landing_masses((edges - t * 0.31) / (1 - t), jnp.full((259,), 0.31))
        np.testing.assert_allclose(jnp.sum(masses), 1.0, atol=1e-12)
        assert np.all(masses >= -1e-15)


@pytest.mark.parametrize("name", ["condot", "trigonometric", "variance_preserving"])
def test_conditional_forward_equation(name, x64):
    """`d/dt E f = E L f` for flow, jump and backward jump, given the endpoint; the worst residual is printed."""
    path, z, fine = gaussian_path(name, (1,)), 0.7, np.linspace(-9.0, 9.0, 40_001)
    functions = [lambda x: x**2, lambda x: jnp.sin(1.3 * x - 0.4), lambda x: jnp.exp(-0.5 * (x - 0.5) ** 2)]
    weights = norm.pdf(fine) * (fine[1] - fine[0])
    worst = 0.0
    for t in (0.15, 0.4, 0.8):
        alpha, alpha_dot, sigma, sigma_dot = GAUSSIAN_FORMS[name](t)
        x = alpha * z + sigma * fine
        e, r, speed = (np.asarray(a) for a in jump_coordinates(path, jnp.asarray(x), jnp.full(x.shape, z), t))
        np.testing.assert_allclose(e, fine, atol=1e-10)
        np.testing.assert_allclose(r[0], alpha_dot * z / abs(sigma_dot), rtol=1e-10)
        laws = {
            "jump": (jump_rate, landing_density, 1),
            "backward": (backward_jump_rate, backward_landing_density, -1),
        }
        for fn in functions:

            def mean(s, fn=fn):
                a, _, b, _ = GAUSSIAN_FORMS[name](s)
                return (weights * np.asarray(fn(jnp.asarray(a * z + b * fine)))).sum()

            left, values = slope(mean, t), np.asarray(fn(jnp.asarray(x)))
            for rate_fn, density_fn, sign in laws.values():
                rate = speed * np.asarray(rate_fn(jnp.asarray(e), jnp.asarray(r)))
                density = np.asarray(density_fn(jnp.asarray(e), jnp.asarray(r)))
                landed = (density * values).sum() * (fine[1] - fine[0])
                right = (weights * rate * (landed - values)).sum()
                worst = max(worst, abs(left - sign * right))
            velocity = sigma_dot / sigma * (x - alpha * z) + alpha_dot * z
            gradient = np.asarray(jax.vmap(jax.grad(fn))(jnp.asarray(x)))
            worst = max(worst, abs(left - (weights * velocity * gradient).sum()))
    print(f"{name}: worst residual {worst:.1e}")
    assert worst < 1e-6


def couplings():
    path = gaussian_path("trigonometric", (1,))
    ends = [(0.0, 0.3), (0.2, 0.201), (0.4, 0.95), (0.9, 0.999)]
    return [(path, z, t, s) for t, s in ends for z in (-1.7, 0.0, 2.2)]


@jax.jit
def everything_of(c, nodes, points, u):
    """Compiled once for all couplings."""
    return {
        "ends": jnp.stack([c.mean_s + c.std_s * e for e in c.interval]),
        "moved": c.moved,
        "stay": c.stay_prob(nodes),
        "backward_stay": c.backward_stay_prob(nodes),
        "land": jnp.exp(c.landing_log_prob(nodes)),
        "backward_land": jnp.exp(c.backward_landing_log_prob(nodes)),
        "cdf": c.landing_cdf(points),
        "inverted": c.landing_cdf(c.landing_ppf(u)),
        "backward_inverted": c.backward_landing_cdf(c.backward_landing_ppf(u)),
    }


def test_maximal_coupling_takes_one_law_to_the_other(x64):
    """`K p_t = p_s` and back, by quadrature on a grid: the atoms and the landing laws."""
    u = jnp.asarray(U)
    for path, z, t, s in couplings():
        c = conditional_coupling(path, jnp.asarray(z), t, s)
        (a, b), (al, bl) = path.coefficients(t), path.coefficients(s)
        p, q = norm(float(a) * z, float(b)), norm(float(al) * z, float(bl))
        x = np.linspace(p.mean() - 8 * p.std(), p.mean() + 8 * p.std(), 2001)
        points = q.mean() + q.std() * np.linspace(-2.0, 2.0, 7)
        got = everything_of(c, jnp.asarray(x), jnp.asarray(points), u)
        kept = p.pdf(x) * got["stay"]
        np.testing.assert_allclose(kept, q.pdf(x) * got["backward_stay"], atol=1e-12)  # both are min(p, q)
        np.testing.assert_allclose(kept + got["moved"] * got["land"], q.pdf(x), atol=1e-9)
        np.testing.assert_allclose(kept + got["moved"] * got["backward_land"], p.pdf(x), atol=1e-9)

        def gained(y, p=p, q=q):
            return q.cdf(y) - p.cdf(y)

        low, high = np.asarray(got["ends"])
        np.testing.assert_allclose(q.logpdf([low, high]), p.logpdf([low, high]), atol=1e-6)
        moved = gained(high) - gained(low)
        np.testing.assert_allclose(got["moved"], moved, atol=1e-12)
        forward = (gained(np.clip(points, low, high)) - gained(low)) / moved
        np.testing.assert_allclose(got["cdf"], forward, atol=1e-9)
        np.testing.assert_allclose(got["inverted"], U, atol=1e-9)
        np.testing.assert_allclose(got["backward_inverted"], U, atol=1e-9)


def test_coupling_in_float32_moves_samples_rightly():
    path, num = gaussian_path("condot", (1,)), 20_000

    @jax.jit
    def move(c):
        keys = jax.random.split(jax.random.key(0), 3)
        x = c.mean_t + c.std_t * jax.random.normal(keys[0], (num,))
        land = c.landing_ppf(jax.random.uniform(keys[1], (num,)))
        return jnp.where(jax.random.uniform(keys[2], (num,)) < c.stay_prob(x), x, land)

    for t, s in [(0.3, 0.4), (0.9, 0.998)]:
        c = conditional_coupling(path, jnp.asarray(0.8), t, s)
        y = move(c)
        assert kolmogorov_score(y, norm(float(c.mean_s), float(c.std_s)).cdf) < 2


def test_steps_too_short_for_float32_leave_states_alone():
    """Equal or, by rounding, growing deviations, with a mean that moves and one that does not."""
    for later in (1.0, np.nextafter(np.float32(1.0), np.float32(2.0))):
        mean_s, ones = jnp.array([0.0, 1e-5, -1e-5], jnp.float32), jnp.ones(3, jnp.float32)
        c = MaximalCoupling(jnp.zeros_like(mean_s), ones, mean_s, later * ones)
        for x in (-0.7 * ones, 0.0 * ones, 1.3 * ones):
            assert np.all(c.stay_prob(x) > 0.999)
            assert not np.any(np.isnan(c.landing_log_prob(x)))
            assert not np.any(np.isnan(c.backward_landing_log_prob(x)))
        for u in (0.1, 0.5, 0.9):
            assert np.all(np.isfinite(c.landing_ppf(u * ones)))
            assert np.all(np.isfinite(c.backward_landing_ppf(u * ones)))


def test_density_ratio_is_the_integrated_rate(x64):
    """Along a state that stays, `log p_t - log p_s = integral of the rate`, where the rate is positive throughout."""
    path, z, x, t, s = gaussian_path("condot", (1,)), 0.6, 3.1, 0.3, 0.55

    def rate(u):
        e, r, speed = jump_coordinates(path, jnp.asarray(x), jnp.asarray(z), u)
        return float(speed * jump_rate(e, r))

    hazard = quad(rate, t, s, epsabs=1e-11)[0]
    stay = conditional_coupling(path, jnp.asarray(z), t, s).stay_prob(jnp.asarray(x))
    np.testing.assert_allclose(-np.log(stay), hazard, rtol=1e-8)


def test_survival_rules(x64):
    """All agree for short steps; the corrected one is the published formula on condot, zero at the end."""
    path, rate = gaussian_path("condot", (1,)), jnp.asarray(0.8)
    for rule in ("bernoulli", "exp", "corrected"):
        h = 1e-5
        jump = 1 - survival(rate, path, 0.4, 0.4 + h, rule)
        np.testing.assert_allclose(jump / h, 0.8 / 0.6, rtol=1e-4)
    t, h = 0.4, 0.3
    published = np.exp(0.5 * 0.8 * (1 - (1 - t) ** 2 / (1 - t - h) ** 2))
    np.testing.assert_allclose(survival(rate, path, t, t + h, "corrected"), published, rtol=1e-10)
    assert survival(rate, path, t, 1.0, "corrected") == 0
    with pytest.raises(ValueError, match="rule: expected one of"):
        survival(rate, path, t, 1.0, "never")


def test_normal_intervals_far_from_zero():
    """Float32, against float64: masses and quantiles of intervals up to forty deviations out."""
    low = np.array([-40.0, -6.0, -1.0, 0.0, 5.0, 12.0, 39.0])
    high = low + np.array([0.5, 0.1, 2.0, 0.01, 0.3, 4.0, 1e5])
    left, right = np.where(low + high > 0, -high, low), np.where(low + high > 0, -low, high)
    want = norm.logcdf(right) + np.log(-np.expm1(norm.logcdf(left) - norm.logcdf(right)))
    low, high = (jnp.asarray(a, jnp.float32) for a in (low, high))
    np.testing.assert_allclose(log_interval_mass(low, high), want, rtol=2e-5, atol=2e-4)
    u = jnp.full(low.shape, 0.3, jnp.float32)
    x = interval_ppf(u, low, high)
    below = log_interval_mass(low, x) - log_interval_mass(low, high)
    np.testing.assert_allclose(jnp.exp(below), 0.3, atol=2e-3)
    gradient = jax.grad(lambda a: jnp.sum(log_interval_mass(a, high)))(low)
    assert np.all(np.isfinite(gradient))


def test_faults_are_detected(x64):
    """A landing law in units of the earlier deviation, and bins by the density at their centres."""
    path, z = gaussian_path("condot", (1,)), 0.8
    c = conditional_coupling(path, jnp.asarray(z), 0.5, 0.8)
    wrong = MaximalCoupling(c.mean_t, c.std_t, c.mean_s, c.std_s * 1.1)
    x = jnp.linspace(-4.0, 4.0, 2001)
    arrived = c.moved * jnp.exp(wrong.landing_log_prob(x)) + jnp.exp(wrong._log_p(x)) * wrong.stay_prob(x)
    assert np.abs(arrived - np.exp(c._log_q(x))).max() > 1e-2
    centres = (np.linspace(-1, 1, 257)[:-1] + 1 / 256 - 0.9995 * 0.31) / 5e-4
    by_centre = landing_density(jnp.asarray(centres), jnp.full(256, 0.31)).sum() * (2 / 256) / 5e-4
    assert abs(by_centre - 1) > 0.1
