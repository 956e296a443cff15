"""Scenes on disk: file formats, view selection, scene folders, data sets and point clouds."""

from .blendedmvs import BlendedMVS
from .colmap import SparseModel, cover, read_model, scene_from_colmap
from .dtu import DTU
from .folders import SceneDataset, SceneFolders
from .formats import (
    Camera,
    Pairs,
    atomic_write,
    image_size,
    read_cam,
    read_image,
    read_pair,
    read_pfm,
    write_cam,
    write_image,
    write_pair,
    write_pfm,
)
from .photos import Photo, find_photos, read_mask, read_photo
from .ply import PointCloud, read_ply, write_ply
from .scene import Sample, Scene, write_scene
from .views import (
    angle_weight,
    baseline_angles,
    depth_range,
    pair_score,
    plane_count,
    select_sources,
    view_scores,
)

__all__ = [
    "DTU",
    "BlendedMVS",
    "Camera",
    "Pairs",
    "Photo",
    "PointCloud",
    "Sample",
    "Scene",
    "SceneDataset",
    "SceneFolders",
    "SparseModel",
    "angle_weight",
    "atomic_write",
    "baseline_angles",
    "cover",
    "depth_range",
    "find_photos",
    "image_size",
    "pair_score",
    "plane_count",
    "read_cam",
    "read_image",
    "read_mask",
    "read_model",
    "read_pair",
    "read_pfm",
    "read_photo",
    "read_ply",
    "scene_from_colmap",
    "select_sources",
    "view_scores",
    "write_cam",
    "write_image",
    "write_pair",
    "write_pfm",
    "write_ply",
    "write_scene",
]
