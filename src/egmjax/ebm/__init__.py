"""Energy-based models: time-dependent energies learned from data, and what they are for."""

from ._chains import ChainState, Negatives, chain_negatives
from ._classification import LevelExample, classification_loss, classification_objective, fix_gauge
from ._compose import (
    ScaledNoise,
    interpolated_normalizers,
    mixture_density,
    product_density,
    product_path,
)
from ._contrastive import (
    halfway,
    move_contrastive_objective,
    step_consistency_objective,
    swap_contrastive_objective,
)
from ._energies import (
    LogDensityFn,
    log_density,
    preconditioned_psi,
    predict_from_psi,
    relative_to,
    with_energy,
)
from ._feynman_kac import FeynmanKacProduct
from ._flows import NormalizingFlow, flow_density, gaussian_flow, moments, real_nvp, spline_flow
from ._levels import PickFn, local_pairs, log_snr_levels, mixed_pick, random_levels, uniform_levels
from ._likelihood import (
    TiltedEnergy,
    flow_loss,
    flow_objective,
    likelihood_trainer,
    stop_on_divergence,
    tilted_energy,
)
from ._masses import ModelMass, enumerated_masses, quadrature_masses, sampled_masses
from ._matching import log_snr_weight, score_matching_objective, time_score, time_score_objective
from ._mixtures import mixture_psi, noised_mixture
from ._moves import MoveFn, MoveInfo, gibbs_sweep, i_sir, independence_metropolis, langevin, mala_gibbs
from ._normalizers import NormalizerFit, fit_normalizers
from ._path_proposals import PathProposal, defended, rollout_proposal

__all__ = [
    "ChainState",
    "FeynmanKacProduct",
    "LevelExample",
    "LogDensityFn",
    "ModelMass",
    "MoveFn",
    "MoveInfo",
    "Negatives",
    "NormalizerFit",
    "NormalizingFlow",
    "PathProposal",
    "PickFn",
    "ScaledNoise",
    "TiltedEnergy",
    "chain_negatives",
    "classification_loss",
    "classification_objective",
    "defended",
    "enumerated_masses",
    "fit_normalizers",
    "fix_gauge",
    "flow_density",
    "flow_loss",
    "flow_objective",
    "gaussian_flow",
    "gibbs_sweep",
    "halfway",
    "i_sir",
    "independence_metropolis",
    "interpolated_normalizers",
    "langevin",
    "likelihood_trainer",
    "local_pairs",
    "log_density",
    "log_snr_levels",
    "log_snr_weight",
    "mala_gibbs",
    "mixed_pick",
    "mixture_density",
    "mixture_psi",
    "moments",
    "move_contrastive_objective",
    "noised_mixture",
    "preconditioned_psi",
    "predict_from_psi",
    "product_density",
    "product_path",
    "quadrature_masses",
    "random_levels",
    "real_nvp",
    "relative_to",
    "rollout_proposal",
    "sampled_masses",
    "score_matching_objective",
    "spline_flow",
    "step_consistency_objective",
    "stop_on_divergence",
    "swap_contrastive_objective",
    "tilted_energy",
    "time_score",
    "time_score_objective",
    "uniform_levels",
    "with_energy",
]
