"""Data on the host: tables of mixed columns as states of a product space, and back."""

from ._quantiles import Quantiles, fit_quantiles
from ._table import TableEncoder, fit_table

__all__ = ["Quantiles", "TableEncoder", "fit_quantiles", "fit_table"]
