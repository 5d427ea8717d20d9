"""Figures, returned and never shown; matplotlib is imported when a figure is made."""

from ._data_report import plot_data_report
from ._film_strip import plot_film_strip
from ._report import plot_report

__all__ = ["plot_data_report", "plot_film_strip", "plot_report"]
