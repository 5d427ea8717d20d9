"""Figures, returned and never shown; matplotlib is imported when a figure is made."""

from ._data_report import plot_data_report
from ._report import plot_report

__all__ = ["plot_data_report", "plot_report"]
