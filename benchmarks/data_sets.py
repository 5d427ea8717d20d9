"""Data sets: rows split into training and test, as states, with the features that metrics compare them by.

Nothing is downloaded: packages ship the digits (scikit-learn) and the table (statsmodels), the others are drawn.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from egmjax.data import TableEncoder, fit_table
from egmjax.states import Categorical, Real, Space
from egmjax.targets import Rings

SEED = 1  # of splits, of drawn data and of the digits' classifier: the data are the same in every run
NUM_ROWS = 20_000
GREY_LEVELS = 17
REDRAWN = 16

States = Any
ColumnsFn = Callable[[dict[str, np.ndarray]], np.ndarray]


class Exact(NamedTuple):
    """What is known of a law: `fn(columns) -> [n]` has mean `value` and standard deviation `std`."""

    fn: ColumnsFn
    value: float
    std: float


class DataSet(NamedTuple):
    """`train` and `test` are states of `space`, stacked; `features(x) -> [n, f]` float64.

    `encoder` and `exact` are a table's alone. `redraw(x, seed)` draws anew what was drawn to make a row: where in its
    interval a level, or an atom of a column, lies.
    """

    space: Space
    train: States
    test: States
    features: Callable[[States], np.ndarray]
    encoder: TableEncoder | None = None
    exact: dict[str, Exact] | None = None
    redraw: Callable[[States, int], States] | None = None
    are_images: bool = False


def load_data(name: str) -> DataSet:
    """The data set of that name in `options.DATA_SETS`."""
    loaders: dict[str, Callable[[], DataSet]] = {
        "digits": digits,
        "digits-tokens": digit_tokens,
        "mixed-table": mixed_table,
        "mixed-synthetic": mixed_synthetic,
        "moons": lambda: _plane(_moons),
        "checkerboard": lambda: _plane(_checkerboard),
        "rings": lambda: _plane(_rings),
    }
    return loaders[name]()


def take(x: States, index: Any) -> States:
    """Rows of stacked states."""
    return jax.tree.map(lambda a: a[index], x)


def set_aside(data: DataSet) -> DataSet:
    """The training rows alone, a quarter of them in place of the test rows: what options are chosen by."""
    num = len(jax.tree.leaves(data.train)[0])
    order = np.random.default_rng(SEED).permutation(num)
    return data._replace(train=take(data.train, order[num // 4 :]), test=take(data.train, order[: num // 4]))


def rows_to_learn(data: DataSet) -> States:
    """The training rows; `REDRAWN` times with new noise where noise made them, so that it is not learned by heart."""
    if data.redraw is None:
        return data.train
    redrawn = [data.redraw(data.train, SEED + k) for k in range(1, REDRAWN)]
    return jax.tree.map(lambda *a: np.concatenate(a), data.train, *redrawn)


def digits() -> DataSet:
    """1,198 + 599 images `[64]`: a level `g` of 0..16 is spread over `(2 (g + u) / 17) - 1`, `u` uniform."""
    levels, _, is_test, _ = labelled_digits()

    def spread(level: np.ndarray, seed: int) -> np.ndarray:
        place = np.random.default_rng(seed).random(level.shape)
        return (2.0 * (level + place) / GREY_LEVELS - 1.0).astype(np.float32)

    def redraw(x: np.ndarray, seed: int) -> np.ndarray:
        return spread(np.clip(np.floor(GREY_LEVELS * (x + 1.0) / 2.0), 0, GREY_LEVELS - 1), seed)

    x = spread(levels, SEED)
    return DataSet(Real((64,)), x[~is_test], x[is_test], _features, redraw=redraw, are_images=True)


def digit_tokens() -> DataSet:
    """The same images as 64 symbols of 17 grey levels; features are those of their middle grey."""
    levels, _, is_test, _ = labelled_digits()
    return DataSet(
        Categorical(64, GREY_LEVELS),
        levels[~is_test],
        levels[is_test],
        lambda x: _features((2.0 * x + 1.0) / GREY_LEVELS - 1.0),
    )


class LabelledDigits(NamedTuple):
    """`levels [1797, 64]` int32 and `label [1797]`; which rows are for tests; weights and biases of a classifier."""

    levels: np.ndarray
    label: np.ndarray
    is_test: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]


@functools.cache
def labelled_digits() -> LabelledDigits:
    """The images with their labels, and the fixed classifier.

    Two hidden layers of 64 and 32 units, trained on training rows for the ten classes; right on all of them and on 580
    of the other 599 (.968).
    """
    from sklearn.datasets import load_digits
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    pixels, label = load_digits(return_X_y=True)
    levels = pixels.astype(np.int32)
    is_test = np.zeros(len(levels), bool)
    is_test[np.random.default_rng(SEED).permutation(len(levels))[: len(levels) // 3]] = True
    network = MLPClassifier((64, 32), alpha=1e-3, max_iter=60, random_state=SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit((2.0 * levels[~is_test] + 1.0) / GREY_LEVELS - 1.0, label[~is_test])
    return LabelledDigits(levels, label, is_test, tuple(zip(network.coefs_, network.intercepts_)))


def digit_class(x: jax.Array) -> jax.Array:
    """The class 0..9 that the classifier gives one image `[64]` of numbers in [-1, 1]; others are cut off there."""
    *hidden, (weight, bias) = labelled_digits().layers
    h = jnp.clip(x, -1.0, 1.0)
    for w, b in hidden:
        h = jnp.maximum(h @ jnp.asarray(w, h.dtype) + jnp.asarray(b, h.dtype), 0.0)
    return jnp.argmax(h @ jnp.asarray(weight, h.dtype) + jnp.asarray(bias, h.dtype)).astype(jnp.int32)


def _features(x: np.ndarray) -> np.ndarray:
    """Penultimate features `[n, 32]` of the classifier, of images `[n, 64]`."""
    h = np.clip(np.asarray(x, np.float64), -1.0, 1.0)
    for weight, bias in labelled_digits().layers[:-1]:
        h = np.maximum(h @ weight + bias, 0.0)
    return h


def mixed_table() -> DataSet:
    """The RAND health insurance experiment: one row for each person, eight columns.

    Four columns of symbols (coinsurance of five levels, individual deductible, physical limitation, self-rated health,
    which the source has as three indicators) and four of numbers, some with zeros by the thousand. The source has
    20,190 rows, one for each person and year, without a name for the person. Kept is the first of each run of rows
    that agree in all but visits and health: with more of them, rows of one person would be told from others of
    the same law (an AUC of .75 between two sets of real people), and a model could only learn persons by heart.
    """
    from statsmodels.datasets import randhie

    source = randhie.load_pandas().data
    health = np.select(
        [source["hlthg"] == 1, source["hlthf"] == 1, source["hlthp"] == 1],
        ["good", "fair", "poor"],
        "excellent",
    )
    columns = {
        "visits": source["mdvis"].to_numpy(),
        "coinsurance": np.unique(source["lncoins"].to_numpy(), return_inverse=True)[1],
        "individual_deductible": source["idp"].to_numpy().astype(int),
        "log_incentive": source["lpi"].to_numpy(),
        "log_limit": source["fmde"].to_numpy(),
        "limited": (source["physlm"].to_numpy() > 0.5).astype(int),
        "diseases": source["disea"].to_numpy(),
        "health": health.astype(str),
    }
    person = source[["lncoins", "idp", "lpi", "fmde", "physlm", "disea"]].to_numpy()
    is_first = np.concatenate([[True], np.any(person[1:] != person[:-1], axis=1)])
    columns = {name: values[is_first] for name, values in columns.items()}
    order = np.random.default_rng(SEED).permutation(int(is_first.sum()))
    is_test = order >= len(order) - len(order) // 4
    return _table(columns, ("coinsurance", "individual_deductible", "limited", "health"), is_test, "quantile")


def mixed_synthetic() -> DataSet:
    """A class of four, a symbol of three given it, three Gaussian numbers given both: every moment is known."""
    rng = np.random.default_rng(SEED)
    class_prob = np.array([0.4, 0.3, 0.2, 0.1])
    mark_prob = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.3, 0.3, 0.4]])
    mean = 1.5 * rng.standard_normal((4, 3, 3))
    factor = np.array([[0.6, 0.0, 0.0], [0.4, 0.5, 0.0], [-0.3, 0.2, 0.4]])  # x = mean + factor eps
    joint = class_prob[:, None] * mark_prob

    cell = rng.choice(12, size=NUM_ROWS, p=joint.ravel())
    kind, mark = np.divmod(cell, 3)
    x = mean[kind, mark] + rng.standard_normal((NUM_ROWS, 3)) @ factor.T
    columns = {"kind": kind, "a": x[:, 0], "mark": mark, "b": x[:, 1], "c": x[:, 2]}
    return _table(columns, ("kind", "mark"), _last_quarter(NUM_ROWS), "standard")._replace(
        exact=_exact_moments(joint, mean, factor @ factor.T)
    )


def _exact_moments(joint: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> dict[str, Exact]:
    """Class and mark probabilities, means, correlations, and means of numbers within a class.

    All are means of functions of a row; their standard deviations follow from
    `E[u^2 v^2] = (m^2 + A)(n^2 + B) + 2 C^2 + 4 m n C` for Gaussian `u, v` with means `m, n` and covariance `A, B, C`.
    """
    names = ("a", "b", "c")
    prob, cell_mean = joint.ravel(), mean.reshape(-1, 3)
    centre = prob @ cell_mean
    scale = np.sqrt(prob @ (cell_mean - centre) ** 2 + np.diag(covariance))
    m, c = (cell_mean - centre) / scale, covariance / np.outer(scale, scale)

    exact: dict[str, Exact] = {}

    def know(name: str, fn: ColumnsFn, first: float, second: float) -> None:
        exact[name] = Exact(fn, float(first), math.sqrt(second - first**2))

    def score(i: int) -> ColumnsFn:
        return lambda columns: (columns[names[i]] - centre[i]) / scale[i]

    def share(column: str, k: int, other: ColumnsFn | None = None) -> ColumnsFn:
        return lambda columns: (columns[column] == k) * (1.0 if other is None else other(columns))

    def product(i: int, j: int) -> ColumnsFn:
        return lambda columns: score(i)(columns) * score(j)(columns)

    for k, p in enumerate(joint.sum(axis=0)):
        know(f"P(mark={k})", share("mark", k), p, p)
    for k, p in enumerate(joint.sum(axis=1)):
        know(f"P(kind={k})", share("kind", k), p, p)
        within = prob * (np.arange(12) // 3 == k)
        for i, name in enumerate(names):
            second = within @ (m[:, i] ** 2 + c[i, i])
            know(f"E[{name}; kind={k}]", share("kind", k, score(i)), within @ m[:, i], second)
    for i, name in enumerate(names):
        know(f"E[{name}]", score(i), 0.0, 1.0)
        for j in range(i):
            first = prob @ (m[:, i] * m[:, j] + c[i, j])
            squares = (m[:, i] ** 2 + c[i, i]) * (m[:, j] ** 2 + c[j, j]) + 2 * c[i, j] ** 2
            second = prob @ (squares + 4 * m[:, i] * m[:, j] * c[i, j])
            know(f"corr({names[j]}, {name})", product(i, j), first, second)
    return exact


def _table(
    columns: dict[str, np.ndarray], categorical: tuple[str, ...], is_test: np.ndarray, transform: Any
) -> DataSet:
    train, test = ({name: values[rows] for name, values in columns.items()} for rows in (~is_test, is_test))
    encoder = fit_table(train, categorical=categorical, transform=transform)
    return DataSet(
        encoder.space,
        encoder.encode(train),
        encoder.encode(test, seed=1),
        lambda x: encoder.features(encoder.decode(x)),
        encoder,
        redraw=(lambda x, seed: encoder.encode(encoder.decode(x), seed=seed))
        if transform == "quantile"
        else None,
    )


def _last_quarter(num: int) -> np.ndarray:
    return np.arange(num) >= num - num // 4


def _plane(draw: Callable[[np.random.Generator, int], np.ndarray]) -> DataSet:
    points = draw(np.random.default_rng(SEED), NUM_ROWS)
    is_test = _last_quarter(NUM_ROWS)
    centre, scale = points[~is_test].mean(axis=0), points[~is_test].std()
    x = ((points - centre) / scale).astype(np.float32)
    return DataSet(Real((2,)), x[~is_test], x[is_test], lambda x: np.asarray(x, np.float64))


def _moons(rng: np.random.Generator, num: int) -> np.ndarray:
    """Half circles about (0, 0) and (1, 1/2), the second upside down, with noise of .1."""
    angle, side = np.pi * rng.random(num), rng.integers(0, 2, num)
    sign = 1.0 - 2.0 * side
    arc = np.stack([side + sign * np.cos(angle), 0.5 * side + sign * np.sin(angle)], axis=1)
    return arc + 0.1 * rng.standard_normal((num, 2))


def _checkerboard(rng: np.random.Generator, num: int) -> np.ndarray:
    """Uniform on the black squares of a 4 x 4 board."""
    column, row = rng.integers(0, 4, num), rng.integers(0, 2, num)
    return np.stack([column, 2 * row + column % 2], axis=1) + rng.random((num, 2))


def _rings(rng: np.random.Generator, num: int) -> np.ndarray:
    """Circles of radius 1 to 4 about one centre, of weights .1 to .4, blurred by .08."""
    return np.asarray(Rings().sample(jax.random.key(SEED), num), np.float64)
