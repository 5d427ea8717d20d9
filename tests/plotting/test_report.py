"""The report: a figure for every kind of state, without pyplot and whatever the weights are."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from egmjax.plotting import plot_data_report, plot_report

Figure = pytest.importorskip("matplotlib.figure").Figure
NUM = 200
RNG = np.random.default_rng(0)
STATES = {
    "lattice": RNG.integers(0, 2, size=(NUM, 16)).astype(np.int32),
    "chain": RNG.integers(0, 5, size=(NUM, 7)).astype(np.int32),
    "line": RNG.normal(size=(NUM, 1)).astype(np.float32),
    "plane": RNG.normal(size=(NUM, 2)).astype(np.float32),
    "particles": RNG.normal(size=(NUM, 4, 3)).astype(np.float32),
    "pair": (
        RNG.normal(size=(NUM, 2)).astype(np.float32),
        RNG.integers(0, 2, size=(NUM, 3)).astype(np.int32),
    ),
    "many": (
        RNG.normal(size=(NUM, 10)).astype(np.float32),
        RNG.integers(0, 2, size=(NUM, 10)).astype(np.int32),
    ),
}
HISTORY = [{"step": i, "loss": 1 / (i + 1), "seconds": 0.1 * i} for i in range(60)]
HISTORY[30]["ess_fraction"] = 0.5


@pytest.fixture(autouse=True)
def _strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


def report(states=STATES["plane"], **kwargs):
    arguments = {
        "states": states,
        "energies": RNG.normal(size=NUM),
        "log_weight": RNG.normal(size=NUM),
        "history": HISTORY,
    }
    return plot_report(**{**arguments, **kwargs})


def texts(figure):
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return "\n".join(artist.get_text() for artist in found)


@pytest.mark.parametrize("kind", STATES)
def test_every_kind_of_state(kind):
    figure = report(
        STATES[kind],
        reference_energies=RNG.normal(size=300),
        observables={"mean": (RNG.normal(size=NUM), RNG.normal(size=300))},
        exact_log_z=1.5,
        title="a title",
    )
    assert isinstance(figure, Figure)
    assert tuple(figure.get_size_inches() * figure.dpi) == (1500, 900)
    if kind in ("lattice", "plane", "pair"):
        figure.draw_without_rendering()
    shown = texts(figure)
    for expected in ("a title", "weighted", "exact", "1.5000", "ESS/n", "Pareto k", "energy [nats]", "mean"):
        assert expected in shown


def test_bins_of_a_lattice_law_are_centred_on_its_points():
    values, probabilities = np.array([-4.0, -2.0, 0.0, 2.0]), np.array([0.4, 0.3, 0.2, 0.1])
    figure = report(energies=RNG.choice(values, NUM), energy_law=(values, probabilities))
    exact = figure.axes[1].patches[0].get_data()
    np.testing.assert_allclose(exact.values * np.diff(exact.edges), probabilities, atol=1e-12)
    np.testing.assert_allclose(exact.edges[:-1] + 1.0, values)


def test_the_three_histograms_share_their_bins_and_each_sums_to_one():
    energies = RNG.normal(size=NUM)
    energies[0] = 1e6
    figure = report(energies=energies, reference_energies=RNG.normal(size=300))
    data = [patch.get_data() for patch in figure.axes[1].patches]
    assert len(data) == 3
    for d in data:
        np.testing.assert_array_equal(d.edges, data[0].edges)
        assert np.sum(d.values * np.diff(d.edges)) == pytest.approx(1.0)
    assert "beyond" in texts(figure)


def test_weights_move_the_weighted_curve():
    """Seeded fault: weights ignored would leave the weighted histogram on the raw one."""
    x = RNG.normal(size=NUM)
    figure = report(energies=x, log_weight=3 * x, reference_energies=x)
    exact, raw, weighted = (p.get_data().values for p in figure.axes[1].patches)
    np.testing.assert_allclose(exact, raw)
    assert np.abs(weighted - raw).max() > 0.1


def test_nonfinite_values_are_counted():
    log_weight, energies, x = RNG.normal(size=NUM), RNG.normal(size=NUM), STATES["plane"].copy()
    log_weight[:3] = np.nan, np.inf, -np.inf
    energies[:2] = np.nan, np.inf
    x[0] = np.nan
    figure = report(x, energies=energies, log_weight=log_weight)
    figure.draw_without_rendering()
    assert "3 of 200 not finite" in texts(figure)
    assert "energy (2 not finite)" in texts(figure)


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_degenerate_reports(value):
    figure = report(energies=np.full(NUM, value), log_weight=np.full(NUM, value), history=[])
    assert "no loss in history" in texts(figure)


def test_acceptance_of_chains_where_there_is_no_ess():
    rows = [{"step": i, "loss": 1.0, "acceptance": 0.5 + 0.1 * i} for i in range(4)]
    line = report(history=rows).axes[4].lines[0]
    np.testing.assert_allclose(line.get_ydata(), [0.5, 0.6, 0.7, 0.8])
    assert "acceptance" in line.get_label()
    line = report(history=[{**row, "ess_fraction": 0.25} for row in rows]).axes[4].lines[0]
    np.testing.assert_allclose(line.get_ydata(), 0.25)
    assert "acceptance" not in line.get_label()


def test_history_with_holes():
    history = [{}, {"loss": np.nan, "step": 1}, {"loss": 2.0, "energy_evaluations": 10}, {"loss": None}]
    report(history=history).draw_without_rendering()


def test_objectives_in_turn_have_an_axis_each():
    rows = [{"step": i, "loss": 0.1, "objective": "log-variance"} for i in range(40)]
    rows += [{"step": i, "loss": 30.0, "objective": "likelihood"} for i in range(40, 80)]
    axes = {axis.get_ylabel(): axis for axis in report(history=rows).axes}
    for name, value, other in (("log-variance", 0.1, 30.0), ("likelihood", 30.0, 0.1)):
        low, high = axes[name].get_ylim()
        assert low < value < high
        assert not low < other < high
    assert "loss" in [axis.get_ylabel() for axis in report(history=rows[:40]).axes]


def test_pictures_of_real_numbers():
    """The tiles of the first panel are the states, row by row; a transposed one is seen."""
    x = RNG.normal(size=(40, 16))
    figure = plot_data_report(states=x, reference=x[:3], history=[], metrics={}, are_images=True)
    image = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_array_equal(image[5:9, :4], x[6].reshape(4, 4))
    assert not np.array_equal(image[5:9, :4], x[6].reshape(4, 4).T)
    with pytest.raises(ValueError, match=r"^states: expected square"):
        plot_data_report(states=x[:, :15], reference=x, history=[], metrics={}, are_images=True)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"^energies:"):
        report(energies=np.zeros(3))
    with pytest.raises(ValueError, match=r"^states:"):
        report(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"^log_weight:"):
        report(log_weight=np.zeros(0))
    with pytest.raises(ValueError, match=r"^observables"):
        report(observables={"m": (np.zeros(3), None)})


def test_matplotlib_is_lazy_and_pyplot_never_imported():
    code = """
import sys
import egmjax.plotting
assert not any(m.split(".")[0] == "matplotlib" for m in sys.modules)
import numpy as np
zeros = np.zeros(30)
f = egmjax.plotting.plot_report(states=np.zeros((30, 2)), energies=zeros, log_weight=zeros, history=[])
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
