"""egmjax: neural samplers from energies and data, by generator matching in JAX."""

__version__ = "0.1.0"
