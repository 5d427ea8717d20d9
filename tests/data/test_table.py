"""The table encoder: exact inverses, normal scores, and errors that name the column."""

import numpy as np
import pytest
from scipy import stats

from egmjax.data import fit_quantiles, fit_table
from egmjax.states import Categorical, Real
from egmjax.training import check_data

RNG = np.random.default_rng(0)
N = 4000
TABLE = {
    "count": RNG.negative_binomial(1, 0.2, N),  # whole numbers with many ties and a long tail
    "kind": np.array(["a", "b", "c"])[RNG.integers(0, 3, N)],
    "cost": np.where(
        RNG.random(N) < 0.4, 0.0, np.exp(2.0 * RNG.standard_normal(N))
    ),  # an atom and a heavy tail
    "flag": RNG.random(N) < 0.3,
    "level": RNG.integers(5, 8, N),
}
CATEGORICAL = ("kind", "flag", "level")


@pytest.mark.parametrize("transform", ["quantile", "standard"])
@pytest.mark.parametrize("seed", [0, None])
def test_decode_inverts_encode(transform, seed):
    encoder = fit_table(TABLE, categorical=CATEGORICAL, transform=transform)
    x = encoder.encode(TABLE, seed=seed)
    back = encoder.decode(x)
    assert list(back) == list(TABLE)
    for name, values in TABLE.items():
        assert back[name].dtype == values.dtype
        if name == "cost":  # scores are float32: exact at the atom, to rounding elsewhere
            atom = values == 0
            limit = 1e-12 if transform == "quantile" else 1e-5
            assert np.max(np.abs(back[name][atom])) < limit
            np.testing.assert_allclose(back[name][~atom], values[~atom], rtol=5e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(back[name], values)


def test_space_has_a_component_for_each_number_of_categories():
    encoder = fit_table(TABLE, categorical=CATEGORICAL)
    assert encoder.space == (Real((2,)), Categorical(1, 2), Categorical(2, 3))
    assert encoder.groups == (("count", "cost"), ("flag",), ("kind", "level"))
    x = check_data(encoder.encode(TABLE), encoder.space)
    assert [a.shape for a in x] == [(N, 2), (N, 1), (N, 2)]
    assert encoder.features(TABLE).shape == (N, 2 + 2 + 6)
    assert fit_table({"a": TABLE["count"]}).space == Real((1,))
    assert fit_table({"a": TABLE["kind"]}, categorical=["a"]).space == Categorical(1, 3)


def test_scores_are_standard_normal():
    """Atoms included: Kolmogorov-Smirnov at a level of 1e-3 (the fit makes it conservative)."""
    x, *_ = fit_table(TABLE, categorical=CATEGORICAL).encode(TABLE)
    for column in x.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    middles, *_ = fit_table(TABLE, categorical=CATEGORICAL).encode(TABLE, seed=None)
    assert stats.kstest(middles[:, 0], "norm").pvalue < 1e-6, "without spreading atoms the test sees them"


def test_quantiles_between_and_beyond_what_was_seen():
    q = fit_quantiles(np.array([1.0, 2.0, 2.0, 4.0]))
    levels = stats.norm.cdf(q.encode(np.array([1.0, 2.0, 4.0, 3.0, 0.0, 9.0])))
    # levels of the knots: 1 at 1/8, 2 from 1/4 to 3/4, 4 at 7/8
    np.testing.assert_allclose(levels, [1 / 8, 1 / 2, 7 / 8, 13 / 16, 1 / 8, 7 / 8], rtol=1e-12)
    np.testing.assert_allclose(q.decode(stats.norm.ppf([0.01, 0.3, 0.74, 13 / 16, 0.99])), [1, 2, 2, 3, 4])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"cost": np.where(np.arange(N) == 7, np.nan, TABLE["cost"])}, r"columns\['cost'\].*row 7"),
        ({"count": np.full(N, 3)}, r"columns\['count'\]: is constant"),
        ({"flag": np.zeros(N, bool)}, r"columns\['flag'\]: is constant"),
        ({"cost": TABLE["kind"]}, r"columns\['cost'\]: expected numbers"),
        ({"kind": TABLE["cost"]}, r"columns\['kind'\]: categories"),
        ({"kind": np.array([None, "a"] * (N // 2), object)}, r"columns\['kind'\]: categories"),
        ({"level": TABLE["level"][:-1]}, r"columns\['level'\]: expected shape"),
    ],
)
def test_bad_columns_are_named(change, word):
    with pytest.raises(ValueError, match=word):
        fit_table({**TABLE, **change}, categorical=CATEGORICAL)


def test_other_refusals():
    encoder = fit_table(TABLE, categorical=CATEGORICAL)
    short = {name: values[:3] for name, values in TABLE.items()}
    with pytest.raises(ValueError, match=r"columns\['kind'\]: category .*'z'"):
        encoder.encode({**short, "kind": np.array(["a", "z", "b"])})
    with pytest.raises(ValueError, match="columns: 'flag' is missing"):
        encoder.encode({n: v for n, v in short.items() if n != "flag"})
    for rows in (0, 1):
        with pytest.raises(ValueError, match="columns: needs at least 2 rows"):
            fit_table({n: v[:rows] for n, v in TABLE.items()}, categorical=CATEGORICAL)
    with pytest.raises(ValueError, match="columns: needs at least one"):
        fit_table({})
    with pytest.raises(ValueError, match="categorical"):
        fit_table(TABLE, categorical=["colour"])
    with pytest.raises(ValueError, match="transform"):
        fit_table(TABLE, categorical=CATEGORICAL, transform="log")
    x = encoder.encode(short)
    with pytest.raises(ValueError, match="x: expected states"):
        encoder.decode(x[:2])
    with pytest.raises(ValueError, match=r"x: expected symbols 0\.\.1 of column 'flag'"):
        encoder.decode((x[0], x[1] + 2, x[2]))
