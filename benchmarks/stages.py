"""Where the time goes on the way from a scene folder to a point cloud: the network, or all that surrounds it?

    python benchmarks/stages.py [--scene FOLDER]

Depth maps and fusion with the defaults of the commands, in a scratch folder, on one thread, by the clock of
the processor.
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
import time
from pathlib import Path

import experiment

from mvsnet_edu.data import Scene
from mvsnet_edu.inference import estimate_scene, how_much_to_enlarge
from mvsnet_edu.models import MVSNet
from mvsnet_edu.reconstruction import fuse_scene

#: File and function in which a stage spends its time, with all that it calls.
STAGES = {
    "reading and resizing photos": ("scene.py", "resized"),
    "features": ("features.py", "forward"),
    "sweep and 3D network": ("models.py", "sweep"),
    "refinement": ("models.py", "refine"),
    "writing depth maps": ("inference.py", "_write"),
    "reading depth maps": ("inference.py", "read_estimates"),
    "filtering and fusing": ("fusion.py", "fuse_depth_maps"),
}


def main() -> None:
    options = experiment.options(__doc__, scene=str(experiment.ROOT / "data" / "still_life"))
    scene, network = Scene.open(options.scene), MVSNet.from_pretrained("mvsnet")
    profile = cProfile.Profile(time.process_time)
    with tempfile.TemporaryDirectory() as folder:
        profile.enable()
        estimate_scene(scene, folder, network, device="cpu", enlarge=how_much_to_enlarge(network, scene))
        fuse_scene(scene, Path(folder))
        profile.disable()
    rows = seconds(pstats.Stats(profile))
    experiment.write("stages", scene=Path(options.scene).name, views=len(scene.references), seconds=rows)
    total = sum(rows.values())
    for name, value in rows.items():
        print(f"{name:30} {value:8.2f} s {value / total:7.1%}")


def seconds(stats: pstats.Stats) -> dict[str, float]:
    """Of each stage; and of the rest, so that all of them make up the whole."""
    cumulative: dict[tuple[str, str], float] = {}
    for (file, _, function), (*_, spent, _) in stats.stats.items():
        place = Path(file).name, function
        cumulative[place] = cumulative.get(place, 0) + spent
    rows = {name: cumulative.get(place, 0.0) for name, place in STAGES.items()}
    whole = cumulative["inference.py", "estimate_scene"] + cumulative["reconstruction.py", "fuse_scene"]
    return rows | {"all else": whole - sum(rows.values())}


if __name__ == "__main__":
    main()
