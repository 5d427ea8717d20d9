"""Energy-based models: time-dependent energies learned from data, and what they are for."""

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
from ._levels import PickFn, local_pairs, log_snr_levels, mixed_pick, random_levels, uniform_levels
from ._matching import log_snr_weight, score_matching_objective, time_score, time_score_objective
from ._mixtures import mixture_psi, noised_mixture
from ._normalizers import NormalizerFit, fit_normalizers

__all__ = [
    "FeynmanKacProduct",
    "LevelExample",
    "LogDensityFn",
    "NormalizerFit",
    "PickFn",
    "ScaledNoise",
    "classification_loss",
    "classification_objective",
    "fit_normalizers",
    "fix_gauge",
    "halfway",
    "interpolated_normalizers",
    "local_pairs",
    "log_density",
    "log_snr_levels",
    "log_snr_weight",
    "mixed_pick",
    "mixture_density",
    "mixture_psi",
    "move_contrastive_objective",
    "noised_mixture",
    "preconditioned_psi",
    "predict_from_psi",
    "product_density",
    "product_path",
    "random_levels",
    "relative_to",
    "score_matching_objective",
    "step_consistency_objective",
    "swap_contrastive_objective",
    "time_score",
    "time_score_objective",
    "uniform_levels",
    "with_energy",
]
