"""MVSNet, stage by stage: learned multi-view stereo in small, tested pieces.

Everything public of the stages is importable from here, and so are fusion, evaluation and the exercises; the
rest of what one does with them lives in the submodules ``data``, ``training``, ``inference`` and ``figures``.
"""

from .camera import backproject, camera_center, crop_intrinsics, pixel_grid, project, scale_intrinsics
from .cost_volume import variance_cost_volume
from .depth import inverse_depths, probability_map, soft_argmin, uniform_depths, winner_take_all
from .errors import InputError
from .evaluation import cloud_metrics
from .features import FeatureNet, standardize
from .fusion import fuse_depth_maps
from .homography import depth_warp, homography_warp, plane_homographies
from .losses import (
    less_one_percentage,
    less_three_percentage,
    mvsnet_classification_loss,
    mvsnet_loss,
    mvsnet_regression_loss,
    non_zero_mean_absolute_diff,
)
from .models import DepthEstimate, MVSNet, RMVSNet
from .refinement import RefineNet, depth_refine
from .regularization import CostRegNet

from . import exercises  # isort: skip  # last: it checks answers against everything above

__version__ = "0.1.0"

__all__ = [
    "CostRegNet",
    "DepthEstimate",
    "FeatureNet",
    "InputError",
    "MVSNet",
    "RMVSNet",
    "RefineNet",
    "backproject",
    "camera_center",
    "cloud_metrics",
    "crop_intrinsics",
    "depth_refine",
    "depth_warp",
    "exercises",
    "fuse_depth_maps",
    "homography_warp",
    "inverse_depths",
    "less_one_percentage",
    "less_three_percentage",
    "mvsnet_classification_loss",
    "mvsnet_loss",
    "mvsnet_regression_loss",
    "non_zero_mean_absolute_diff",
    "pixel_grid",
    "plane_homographies",
    "probability_map",
    "project",
    "scale_intrinsics",
    "soft_argmin",
    "standardize",
    "uniform_depths",
    "variance_cost_volume",
    "winner_take_all",
]
