"""Training: objectives, replay buffer, one step, one loop, checkpoints, sharding."""

from ._buffer import BufferState, ReplayBuffer, replay_buffer
from ._checkpoint import CheckpointError, Checkpoints, write_atomically
from ._loop import FitResult, fit
from ._objectives import Examples, Objective, snis_objective, weighted_objective
from ._sharding import constrain, state_mesh
from ._trainer import ApplyFn, Trainer, TrainState, linear_temper, make_trainer

__all__ = [
    "ApplyFn",
    "BufferState",
    "CheckpointError",
    "Checkpoints",
    "Examples",
    "FitResult",
    "Objective",
    "ReplayBuffer",
    "TrainState",
    "Trainer",
    "constrain",
    "fit",
    "linear_temper",
    "make_trainer",
    "replay_buffer",
    "snis_objective",
    "state_mesh",
    "weighted_objective",
    "write_atomically",
]
