"""The study of two pitfalls sees them, and the remedies work."""

import pytest

from benchmarks.micro.pitfalls import bootstrap_errors, prior_errors

pytestmark = pytest.mark.slow  # compiles a lot


def test_small_step_proposal_collapses_and_the_reference_posterior_does_not():
    bias, stderr, _, ess = bootstrap_errors("small step", 0.02, 40, 200)
    assert bias > 1
    assert bias > 5 * stderr
    assert ess < 5
    bias, stderr, rmse, ess = bootstrap_errors("reference posterior", 0.02, 40, 200)
    assert abs(bias) < 5 * stderr
    assert rmse < 2
    assert ess > 100


def test_wrong_prior_loads_the_middle_mode():
    """The mode at the origin has weight .088; started too narrow it takes more than half."""
    _, _, mass = prior_errors(2.0, False, 300, 60)
    assert mass > 0.45
    _, _, mass = prior_errors(2.0, True, 300, 60)
    assert mass < 0.16
