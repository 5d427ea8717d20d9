"""Flow, Diffusion, Jump: generators as coefficients, their algebra, and their action on test functions."""

from ._algebra import action, scale, superpose
from ._combine import gibbs, guided, langevin, metropolis, predictor_corrector
from ._generators import Diffusion, Flow, Generator, Jump, RealJump, Superposition

__all__ = [
    "Diffusion",
    "Flow",
    "Generator",
    "Jump",
    "RealJump",
    "Superposition",
    "action",
    "gibbs",
    "guided",
    "langevin",
    "metropolis",
    "predictor_corrector",
    "scale",
    "superpose",
]
