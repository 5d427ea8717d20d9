"""Figures, returned and never shown; matplotlib is imported when a figure is made."""

from ._report import plot_report

__all__ = ["plot_report"]
