"""Training: sources of states, objectives, one step, one loop, checkpoints."""

from ._buffer import BufferState, ReplayBuffer, replay_buffer
from ._checkpoint import CheckpointError, Checkpoints, write_atomically
from ._couplings import Coupling, aligned_coupling, independent_coupling, transport_coupling
from ._history import History
from ._loop import FitResult, fit
from ._objectives import (
    ApplyFn,
    Context,
    Examples,
    Objective,
    PsiApplyFn,
    from_psi_objective,
    multispin_objective,
    psi_objective,
    snis_objective,
    sum_objectives,
    weighted_objective,
)
from ._path_objectives import likelihood_objective, log_variance_objective
from ._sources import Source, chain_source, check_data, data_source, rollout_source
from ._times import TimeFn, log_times, logit_normal_times, stratified_times
from ._trainer import Trainer, TrainState, geometric_temper, lay_out, linear_temper, make_trainer

__all__ = [
    "ApplyFn",
    "BufferState",
    "CheckpointError",
    "Checkpoints",
    "Context",
    "Coupling",
    "Examples",
    "FitResult",
    "History",
    "Objective",
    "PsiApplyFn",
    "ReplayBuffer",
    "Source",
    "TimeFn",
    "TrainState",
    "Trainer",
    "aligned_coupling",
    "chain_source",
    "check_data",
    "data_source",
    "fit",
    "from_psi_objective",
    "geometric_temper",
    "independent_coupling",
    "lay_out",
    "likelihood_objective",
    "linear_temper",
    "log_times",
    "log_variance_objective",
    "logit_normal_times",
    "make_trainer",
    "multispin_objective",
    "psi_objective",
    "replay_buffer",
    "rollout_source",
    "snis_objective",
    "stratified_times",
    "sum_objectives",
    "transport_coupling",
    "weighted_objective",
    "write_atomically",
]
