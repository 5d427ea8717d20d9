"""Flow, Diffusion, Jump: generators as coefficients, their algebra, and their action on test functions."""

from ._algebra import action, scale, superpose
from ._generators import Diffusion, Flow, Generator, Jump, RealJump, Superposition

__all__ = [
    "Diffusion",
    "Flow",
    "Generator",
    "Jump",
    "RealJump",
    "Superposition",
    "action",
    "scale",
    "superpose",
]
