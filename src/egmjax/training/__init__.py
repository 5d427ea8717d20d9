"""Training: objectives, replay buffer, one step, one loop, checkpoints, sharding."""

from ._buffer import BufferState, ReplayBuffer, replay_buffer
from ._checkpoint import CheckpointError, Checkpoints, write_atomically
from ._loop import FitResult, fit
from ._objectives import (
    ApplyFn,
    Context,
    Examples,
    Objective,
    PsiApplyFn,
    from_psi_objective,
    psi_objective,
    snis_objective,
    sum_objectives,
    weighted_objective,
)
from ._sharding import constrain, state_mesh
from ._trainer import Trainer, TrainState, linear_temper, make_trainer

__all__ = [
    "ApplyFn",
    "BufferState",
    "CheckpointError",
    "Checkpoints",
    "Context",
    "Examples",
    "FitResult",
    "Objective",
    "PsiApplyFn",
    "ReplayBuffer",
    "TrainState",
    "Trainer",
    "constrain",
    "fit",
    "from_psi_objective",
    "linear_temper",
    "make_trainer",
    "psi_objective",
    "replay_buffer",
    "snis_objective",
    "state_mesh",
    "sum_objectives",
    "weighted_objective",
    "write_atomically",
]
