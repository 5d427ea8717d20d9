"""The film strip: a panel for every process and time, points where they are, colours that follow them."""

import numpy as np
import pytest

from egmjax.plotting import plot_film_strip

Figure = pytest.importorskip("matplotlib.figure").Figure
TIMES = [0.0, 0.5, 1.0]
POINTS = np.random.default_rng(0).normal(size=(3, 40, 2))


def test_panels_hold_the_points_and_their_colors():
    angle = np.linspace(-np.pi, np.pi, 40)
    rows = {"a": POINTS, "b": 0.5 * POINTS, "grey": POINTS[:, :7]}
    figure = plot_film_strip(rows, TIMES, angles={"a": angle, "b": angle}, title="x")
    assert isinstance(figure, Figure)
    axes = np.array(figure.axes).reshape(3, 3)
    for row, scale in zip(axes, (1.0, 0.5)):
        for axis, frame in zip(row, POINTS):
            (drawn,) = axis.collections
            np.testing.assert_allclose(drawn.get_offsets(), scale * frame)
            np.testing.assert_allclose(drawn.get_array(), angle)
            assert axis.get_xlim() == axes[0, 0].get_xlim() == axis.get_ylim()
    assert axes[2, 0].collections[0].get_array() is None
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["a", "b", "grey"]
    assert [axis.get_title() for axis in axes[0]] == ["t = 0.00", "t = 0.50", "t = 1.00"]


def test_far_points_set_no_scale_and_nonfinite_ones_are_left_away():
    spoiled = POINTS.copy()
    spoiled[1, 0], spoiled[1, 1] = np.nan, 1e6
    figure = plot_film_strip({"a": spoiled}, TIMES)
    assert figure.axes[0].get_xlim()[1] < 10
    figure.draw_without_rendering()


@pytest.mark.parametrize(
    "frames", [{}, {"a": POINTS[:2]}, {"a": POINTS[..., :1]}, {"a": POINTS[0]}, {"a": np.nan * POINTS}]
)
def test_bad_frames(frames):
    with pytest.raises(ValueError, match="frames"):
        plot_film_strip(frames, TIMES)


def test_bad_angles():
    for angles in ({"b": np.zeros(40)}, {"a": np.zeros(39)}):
        with pytest.raises(ValueError, match="angles"):
            plot_film_strip({"a": POINTS}, TIMES, angles=angles)
