"""Normalizing flows that start at a Gaussian fitted to data: RealNVP and rational-quadratic splines.

    x = mean + scale * T_L(... T_1(z)),  z ~ N(0, I)
    log rho(x) = log N(z; 0, I) - sum_l log |det T_l'| - sum log scale

Layer `l` keeps the coordinates whose index has bit `l // 2` (modulo the number of bits), layer `l + 1` the others,
so any two coordinates meet after `2 ceil(log2 d)` layers. The kept ones condition how each of the others is mapped
(Dinh et al., 2017; Durkan et al., 2019). Layers are alike and their parameters stacked, so one of them is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .._precision import highest
from ..networks import head_for
from ..paths._base import Scalar
from ..proposals import Density

BijectorFn = Callable[[jax.Array], Any]  # raw numbers [d, k] -> a distrax bijector of each coordinate


class NormalizingFlow(NamedTuple):
    """A law on R^d with parameters, in pure functions of one state `x: [d]`.

    `init(key) -> params`, `log_prob(params, x) -> scalar`, `sample(params, key) -> x`, and
    `sample_and_log_prob(params, key) -> (x, scalar)`, which spares the inverse.
    """

    init: Callable[[jax.Array], Any]
    log_prob: Callable[[Any, jax.Array], jax.Array]
    sample: Callable[[Any, jax.Array], jax.Array]
    sample_and_log_prob: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]


def moments(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, each `[d]`, of `data [n, d]`: the Gaussian that flows and energies start from.

    Raises `ValueError` unless `data` is `[n, d]`, finite, and varies in every coordinate.
    """
    data = np.asarray(data, dtype=np.float64)
    if data.ndim != 2 or not np.all(np.isfinite(data)):
        raise ValueError(f"data: expected finite numbers [n, d], got shape {data.shape}")
    mean, scale = data.mean(axis=0), data.std(axis=0)
    if not np.all(scale > 0):
        raise ValueError(f"data: coordinate {int(np.argmin(scale))} does not vary")
    return mean, scale


def gaussian_flow(mean: np.ndarray | jax.Array, scale: np.ndarray | jax.Array) -> NormalizingFlow:
    """`N(mean, diag(scale^2))`, both `[d]`, with no parameters: `()` serves. Raises as `real_nvp` does."""
    return _flow(mean, scale, lambda key: (), lambda p, z: (z, 0.0), lambda p, z: (z, 0.0))


def real_nvp(
    mean: np.ndarray | jax.Array,
    scale: np.ndarray | jax.Array,
    *,
    num_layers: int = 8,
    width: int = 64,
    depth: int = 2,
    max_log_scale: float = 3.0,
) -> NormalizingFlow:
    """Affine couplings, `y = shift + exp(s) x` with `|s| < max_log_scale`; the Gaussian of `mean, scale` at `init`.

    Args:
        mean: `[d]`, where the flow starts.
        scale: `[d]`, positive.
        num_layers: Couplings.
        width: Features of the network of each.
        depth: Its hidden layers.
        max_log_scale: Bounds how much a layer may stretch, for stability.

    Raises:
        ValueError: A count below one, shapes other than `[d]` twice, or a number not above zero.

    Needs distrax. A density costs `num_layers (2 d width + (depth - 1) width^2)` multiplications or so.
    """
    _positive(max_log_scale=max_log_scale)
    import distrax

    def bijector(raw: jax.Array) -> Any:
        return distrax.ScalarAffine(raw[:, 0], log_scale=max_log_scale * jnp.tanh(raw[:, 1] / max_log_scale))

    return _coupling_flow(mean, scale, bijector, 2, num_layers, width, depth)


def spline_flow(
    mean: np.ndarray | jax.Array,
    scale: np.ndarray | jax.Array,
    *,
    num_layers: int = 4,
    width: int = 64,
    depth: int = 2,
    num_bins: int = 8,
    bound: float = 5.0,
) -> NormalizingFlow:
    """Couplings by monotone rational-quadratic splines on `[-bound, bound]`, in units of `scale`, and the identity
    beyond, so that tails are those of the Gaussian. Arguments, errors and cost as for `real_nvp`, with `3 num_bins + 1`
    numbers a coordinate.
    """
    _positive(bound=bound, num_bins=num_bins)
    import distrax

    def bijector(raw: jax.Array) -> Any:
        return distrax.RationalQuadraticSpline(raw, -bound, bound, boundary_slopes="identity")

    return _coupling_flow(mean, scale, bijector, 3 * num_bins + 1, num_layers, width, depth)


def flow_density(flow: NormalizingFlow, params: Any) -> Density:
    """The flow as a `proposals.Density` that conditions on nothing: `xt, t, r` are ignored, `None` serves.

    So `proposals.defensive_mixture` mixes flows.
    """

    def sample(key: jax.Array, xt: Any = None, t: Scalar = 0.0, r: Scalar = 1.0) -> jax.Array:
        return flow.sample(params, key)

    def log_prob(xr: jax.Array, xt: Any = None, t: Scalar = 0.0, r: Scalar = 1.0) -> jax.Array:
        return flow.log_prob(params, xr)

    return Density(sample, log_prob)


class _Conditioner(nn.Module):
    """The numbers of the bijector of each coordinate, `[d, k]`, from the kept ones; zero at initialisation."""

    shape: tuple[int, int]
    width: int
    depth: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        for _ in range(self.depth):
            z = nn.silu(nn.Dense(self.width)(z))
        return head_for(self.shape)(z)


def _coupling_flow(
    mean: Any, scale: Any, bijector: BijectorFn, num_raw: int, num_layers: int, width: int, depth: int
) -> NormalizingFlow:
    import distrax

    _positive(num_layers=num_layers, width=width, depth=depth)
    (dim,) = _checked(mean, scale)[0].shape
    masks = _masks(dim, num_layers)
    network = _Conditioner((dim, num_raw), width, depth)

    def layer(params: Any, mask: jax.Array) -> Any:
        return distrax.MaskedCoupling(mask, lambda z: network.apply(params, z), bijector)

    def init(key: jax.Array) -> Any:
        return jax.vmap(lambda k: network.init(k, jnp.zeros(dim)))(jax.random.split(key, num_layers))

    def run(params: Any, z: jax.Array, inverse: bool) -> tuple[jax.Array, jax.Array]:
        def one(carry: tuple[jax.Array, jax.Array], layer_n: tuple[Any, jax.Array]) -> tuple[Any, None]:
            coupling = layer(*layer_n)
            z, log_det = (coupling.inverse_and_log_det if inverse else coupling.forward_and_log_det)(carry[0])
            return (z, carry[1] + log_det), None

        return jax.lax.scan(one, (z, jnp.zeros((), z.dtype)), (params, jnp.asarray(masks)), reverse=inverse)[
            0
        ]

    return _flow(
        mean, scale, init, lambda params, z: run(params, z, False), lambda params, x: run(params, x, True)
    )


def _flow(mean: Any, scale: Any, init: Callable, forward: Callable, inverse: Callable) -> NormalizingFlow:
    """From maps of standard units with their log-determinants to laws of `mean + scale * forward(z)`."""
    mean, scale = _checked(mean, scale)
    forward, inverse = highest(forward), highest(inverse)

    def log_normal(z: jax.Array) -> jax.Array:
        return (
            -0.5 * jnp.sum(z**2) - 0.5 * mean.size * float(np.log(2 * np.pi)) - float(np.sum(np.log(scale)))
        )

    def sample_and_log_prob(params: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = jax.random.normal(key, mean.shape)
        y, log_det = forward(params, z)
        return jnp.asarray(mean, y.dtype) + jnp.asarray(scale, y.dtype) * y, log_normal(z) - log_det

    def log_prob(params: Any, x: jax.Array) -> jax.Array:
        z, log_det = inverse(params, (x - jnp.asarray(mean, x.dtype)) / jnp.asarray(scale, x.dtype))
        return log_normal(z) + log_det

    def sample(params: Any, key: jax.Array) -> jax.Array:
        return sample_and_log_prob(params, key)[0]

    return NormalizingFlow(init, log_prob, sample, sample_and_log_prob)


def _masks(dim: int, num_layers: int) -> np.ndarray:
    """`[num_layers, dim]`, true where a layer keeps a coordinate."""
    num_bits = max(1, (dim - 1).bit_length())
    layers, index = np.arange(num_layers)[:, None], np.arange(dim)[None, :]
    bit = (index >> (layers // 2) % num_bits) & 1
    return bit == (1 - layers % 2)


def _checked(mean: Any, scale: Any) -> tuple[np.ndarray, np.ndarray]:
    mean, scale = np.asarray(mean, np.float64), np.asarray(scale, np.float64)
    if mean.ndim != 1 or mean.shape != scale.shape:
        raise ValueError(f"mean: expected [d], as scale, got shapes {mean.shape} and {scale.shape}")
    if not np.all((scale > 0) & np.isfinite(scale)):
        raise ValueError(f"scale: must be positive and finite, got {scale.tolist()}")
    return mean, scale


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{name}: must be positive, got {value}")
