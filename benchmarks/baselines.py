"""What a table is worth without a model: two laws that know the columns but not, or hardly, how they hang together."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from egmjax.data import fit_quantiles

from .data_sets import take


def gaussian_copula(train: Any, num: int, seed: int) -> Any:
    """Empirical marginals joined by the correlations of normal scores, symbols being scored by their number."""
    rng = np.random.default_rng(seed)
    leaves, structure = jax.tree.flatten(train)
    columns = [column for leaf in leaves for column in leaf.reshape(len(leaf), -1).T]
    marginals = [fit_quantiles(column) for column in columns]
    scores = np.stack([q.encode(column, rng) for q, column in zip(marginals, columns)], axis=1)
    correlation = np.corrcoef(scores, rowvar=False)
    # eigenvalues, since a column that follows from another makes the matrix singular
    value, vector = np.linalg.eigh(correlation)
    drawn = rng.standard_normal((num, len(columns))) * np.sqrt(np.maximum(value, 0.0)) @ vector.T
    decoded = np.stack([q.decode(z) for q, z in zip(marginals, drawn.T)], axis=1)
    edges = np.cumsum([leaf[0].size for leaf in leaves])[:-1]
    parts = [
        (part if np.issubdtype(leaf.dtype, np.floating) else np.round(part)).astype(leaf.dtype)
        for part, leaf in zip(np.split(decoded, edges, axis=1), leaves)
    ]
    return jax.tree.unflatten(structure, parts)


def independent_modalities(train: Any, num: int, seed: int) -> Any:
    """Numbers of one training row beside the symbols of another: exact within a modality, nothing across."""
    rng = np.random.default_rng(seed)
    num_rows = len(jax.tree.leaves(train)[0])
    numbers, symbols = rng.integers(0, num_rows, (2, num))
    leaves, structure = jax.tree.flatten(train)
    chosen = [take(a, numbers if np.issubdtype(a.dtype, np.floating) else symbols) for a in leaves]
    return jax.tree.unflatten(structure, chosen)
