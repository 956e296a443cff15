"""Interactive figures that need no kernel and no network.

Each function returns a ``Figure``: one piece of HTML with its data, its script and a static picture inside.
It shows itself in Jupyter and in the built book, and ``Figure.save`` writes it as a page of its own.
In Jupyter, ``live`` adds a form for the arguments that need Python to follow.
"""

from __future__ import annotations

from mvsnet_edu.figures.cloud import Viewpoint, point_cloud
from mvsnet_edu.figures.epipolar import epipolar
from mvsnet_edu.figures.figure import Figure
from mvsnet_edu.figures.form import live
from mvsnet_edu.figures.loss import loss_explorer
from mvsnet_edu.figures.memory import Formulation, memory_explorer
from mvsnet_edu.figures.refinement import refinement_profile
from mvsnet_edu.figures.regression import Bump, soft_argmin
from mvsnet_edu.figures.sweep import plane_sweep
from mvsnet_edu.figures.volume import cost_volume
from mvsnet_edu.figures.wipe import Picture, compare

__all__ = [
    "Bump",
    "Figure",
    "Formulation",
    "Picture",
    "Viewpoint",
    "compare",
    "cost_volume",
    "epipolar",
    "live",
    "loss_explorer",
    "memory_explorer",
    "plane_sweep",
    "point_cloud",
    "refinement_profile",
    "soft_argmin",
]
