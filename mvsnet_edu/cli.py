"""The command line: ``mvsnet-edu COMMAND``.

Everything heavy is imported inside the command that needs it.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Callable, Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

from . import __version__
from .errors import InputError

__all__ = ["main"]

EXAMPLES = """\
from your photos to a point cloud:
  mvsnet-edu reconstruct PHOTOS OUT

from nothing to a point cloud:
  mvsnet-edu make-data DATA
  mvsnet-edu depth DATA/still_life OUT
  mvsnet-edu fuse DATA/still_life OUT

A scene is a folder with images/00000000.jpg ..., cams/00000000_cam.txt ... and pair.txt.
"mvsnet-edu COMMAND --help" explains one command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after the program's name; those of this process if None.

    Returns:
        the exit code: 0, 2 for unusable input (said in one sentence on stderr), 130 if interrupted.

    Raises:
        SystemExit: after --help and --version, and for words that make no command (code 2).

    >>> main(["evaluate", "nowhere.ply", "nowhere.ply"])
    2
    """
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # a file may have a name that the terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        options.run(options)
        return 0
    except InputError as error:
        return _complain(str(error), 2)
    except (MemoryError, RuntimeError) as error:
        from .memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        return _complain("There is not enough memory for this.", 2)
    except OSError as error:  # a full disk, a folder without permission
        return _complain(f"{error.filename or 'A file'} cannot be used: {error.strerror or error}.", 2)
    except KeyboardInterrupt:
        return _complain("Interrupted.", 130)


def _complain(sentence: str, code: int) -> int:
    print(f"mvsnet-edu: {_printable(sentence)}", file=sys.stderr)
    return code


def _printable(line: str) -> str:
    """One line, whatever is in the names of files and in answers: nothing that steers a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


# --- what the commands take --------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mvsnet-edu",
        description="Learned multi-view stereo: from a scene folder to depth maps and a point cloud.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mvsnet-edu {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    scenes = (_add_reconstruct, _add_colmap, _add_depth, _add_fuse, _add_evaluate, _add_make_data)
    for add in (*scenes, _add_train, _add_exercises):
        add(commands)
    return parser


def _add_reconstruct(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "reconstruct",
        _reconstruct,
        "turn a folder of photos into a point cloud",
        "Finds the cameras (COLMAP, on the CPU), makes a scene, estimates depth maps and fuses them to "
        "OUT/fused.ply and OUT/fused.html, a page to look at it. Started again, it repeats only what has "
        "changed or was not finished.",
        "mvsnet-edu reconstruct my_photos out --size 960",
    )
    add = parser.add_argument
    add("photos", type=Path, metavar="PHOTOS", help="a folder of JPEG, PNG or HEIC photos")
    add("out", type=Path, metavar="OUT", help="the folder for the results")
    add("--size", type=_count, default=640, metavar="PX", help="longest side of the images for the network")
    add("--masks", type=Path, metavar="FOLDER", help="images named like the photos; black is ignored")
    add("--matching", default="exhaustive", metavar="HOW", help="all pairs, or sequential: for many photos")
    _add_network(add)
    _add_thresholds(add)


def _add_colmap(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "colmap",
        _colmap,
        "turn a COLMAP model into a scene",
        "DENSE is what COLMAP's image_undistorter writes: images/ and a model, binary or text, in sparse/. "
        "The sparse points give each view its sources, its depth range and its number of depth planes.",
        "mvsnet-edu colmap my_workspace/dense my_scene",
    )
    add = parser.add_argument
    add("dense", type=Path, metavar="DENSE", help="the folder with images/ and sparse/")
    add("scene", type=Path, metavar="SCENE", help="a new folder")
    add("--sources", type=_count, default=10, metavar="N", help="source views to list for each view")
    add("--planes", type=_count, metavar="D", help="depth planes (default: a pixel apart, 32 to 256)")


def _add_depth(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "depth",
        _depth,
        "estimate the depth maps of a scene",
        "Writes OUT/depth/*.pfm (refined depth), OUT/probability/*.pfm and OUT/cams/*_cam.txt, at a quarter "
        "of the images' size, for every view that has sources in pair.txt. Started again, it goes on where "
        "it was stopped.",
        "mvsnet-edu depth data/still_life out --planes 64 --size 320 256",
    )
    add = _add_scene_and_out(parser)
    _add_network(add)
    add("--size", type=_count, nargs=2, metavar=("W", "H"), help="resize the images first, in pixels")


def _add_fuse(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "fuse",
        _fuse,
        "filter the depth maps and fuse them to a point cloud",
        "Reads what `mvsnet-edu depth SCENE OUT` wrote, keeps what is probable and what other views confirm, "
        "and writes OUT/fused.ply and OUT/fused.html, a page to look at it.",
        "mvsnet-edu fuse data/still_life out --min-probability 0.5",
    )
    add = _add_scene_and_out(parser)
    _add_thresholds(add)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "evaluate",
        _evaluate,
        "compare a point cloud with the truth",
        "Prints accuracy and completeness (mean distances from cloud to truth and back), and precision, "
        "recall and f-score (shares of points nearer than the threshold). Both clouds are PLY files in the "
        "same coordinates. Tanks and Temples' rules, nearly: --threshold T --thin T/2. DTU's rules, without "
        "MATLAB: --dtu, for clouds in millimetres.",
        "mvsnet-edu evaluate mvsnet001.ply stl001_total.ply --dtu ObsMask1_10.mat Plane1.mat",
    )
    add = parser.add_argument
    add("cloud", type=Path, metavar="CLOUD", help="the estimated cloud, a PLY file")
    add("truth", type=Path, metavar="TRUTH", help="the true cloud, a PLY file")
    unit = "in the unit of the clouds (default: 0.5 %% of the diagonal of the truth's bounding box)"
    add("--threshold", type=_positive, metavar="T", help=unit)
    add("--max-distance", type=_positive, metavar="M", help="leave larger distances out of the means")
    add("--thin", type=_positive, metavar="S", help="first leave out points that are this close to others")
    dtu = "thin the cloud to 0.2 mm, count distances below 20 mm, in the part that the two files of the scan "
    add(
        "--dtu",
        nargs="*",
        metavar="FILE",
        help=dtu + "tell, ObsMask*.mat and Plane*.mat (everywhere without them); --threshold is 1 mm",
    )


def _add_make_data(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "make-data",
        _make_data,
        "draw scenes with exact depth",
        "Without options it draws the two scenes that come with the project, into OUT/still_life and "
        "OUT/courtyard. With --layout it draws one scene into OUT.",
        "mvsnet-edu make-data my_scene --layout courtyard --seed 3 --views 6",
    )
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="a new folder")
    add("--layout", metavar="NAME", help="still-life or courtyard")
    add("--seed", type=_whole, metavar="S", help="draws other objects and cameras (default: 0)")
    add("--views", type=_count, metavar="V", help="photographs (default: 7)")
    add("--size", type=_count, nargs=2, metavar=("W", "H"), help="in pixels (default: 640 512)")
    add("--planes", type=_count, metavar="D", help="depth planes in the camera files (default: 96)")


def _add_train(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "train",
        _train,
        "train a network",
        "CONFIG is a TOML file, or the name of a recipe that ships: mvsnet (the weights that come with the "
        "package), rmvsnet (the recurrent network's), paper (the paper's training, on DTU) or quick (a "
        "minute on a CPU). Writes OUT/mvsnet.safetensors or OUT/rmvsnet.safetensors, OUT/log.jsonl and what "
        "TensorBoard shows. Started again, it goes on exactly where it was stopped. Several GPUs or "
        "machines: torchrun --nproc-per-node 4 -m mvsnet_edu train CONFIG.",
        "mvsnet-edu train quick --out runs/first",
    )
    add = parser.add_argument
    add("config", metavar="CONFIG", help="a TOML file, or mvsnet, rmvsnet, paper or quick")
    add("--out", metavar="OUT", help="the folder of the run (default: what CONFIG says, else runs/CONFIG)")
    add("--root", metavar="FOLDER", help="where the data set lies (default: what CONFIG says)")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1 (default: the GPU if there is one)")


def _add_exercises(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands,
        "exercises",
        _export,
        "make assignments of the book's exercises, and mark them",
        '"export" writes a notebook with questions, empty stubs and cells that check. "grade" marks such a '
        "notebook unattended: each answer runs in a process of its own, under limits of time and memory.",
        "mvsnet-edu exercises export week1.ipynb --chapters loss refinement",
    )
    deeds = parser.add_subparsers(metavar="export|grade", required=True)
    _add_export(deeds)
    _add_grade(deeds)


def _add_export(deeds: argparse._SubParsersAction) -> None:
    parser = _command(
        deeds,
        "export",
        _export,
        "write an assignment",
        "Without options it asks all exercises.",
        "mvsnet-edu exercises export week1.ipynb --chapters loss refinement",
    )
    add = parser.add_argument
    add("notebook", type=Path, metavar="NOTEBOOK", help="the notebook to write")
    add("--names", nargs="+", metavar="NAME", help="ask these, in this order")
    add("--chapters", nargs="+", metavar="CHAPTER", help="ask those of these chapters")


def _add_grade(deeds: argparse._SubParsersAction) -> None:
    parser = _command(
        deeds,
        "grade",
        _grade,
        "mark an assignment",
        "Prints the marks; a right answer is worth its difficulty.",
        "mvsnet-edu exercises grade handed_in.ipynb --json marks.json",
    )
    add = parser.add_argument
    add("notebook", type=Path, metavar="NOTEBOOK", help="what a student handed in")
    add("--names", nargs="+", metavar="NAME", help="mark these (default: those that were asked)")
    add("--seconds", type=_amount, default=60.0, metavar="S", help="time for each answer")
    add("--json", type=Path, metavar="FILE", help="write the marks, with the counter-examples")


def _command(
    commands: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {description}",
        epilog=f"example: {example}",
        formatter_class=_Help,
    )
    parser.set_defaults(run=run)
    return parser


class _Help(argparse.HelpFormatter):
    """Shows each option's default, unless its help already does, or nothing is done by default."""

    def _get_help_string(self, action: argparse.Action) -> str:
        shown = action.help or ""
        nothing = action.default in (None, argparse.SUPPRESS) or action.default is False
        if action.option_strings and not nothing:
            shown += " (default: %(default)s)"
        return shown


def _add_scene_and_out(parser: argparse.ArgumentParser) -> Callable:
    parser.add_argument("scene", type=Path, metavar="SCENE", help="the scene's folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder for the results")
    return parser.add_argument


def _add_network(add: Callable) -> None:
    add("--weights", default="mvsnet", metavar="NAME", help="mvsnet or rmvsnet, or a file")
    add("--planes", type=_count, metavar="D", help="depth planes (default: what the cameras say)")
    add("--inverse", action="store_true", help="spread the planes evenly over 1 / depth, for a wide range")
    add("--sources", type=_count, default=4, metavar="N", help="source views for each view")
    add(
        "--enlarge",
        type=_count,
        metavar="N",
        help="show the network images N times as wide and high: finer depth, N x N times the work, maps of "
        "the same size (default: as in training for images of up to 0.4 megapixels, else 1)",
    )
    add(
        "--subsets",
        choices=("none", "halves", "pairs"),
        help="look again with each half of the sources, or with every two, and believe at each pixel those "
        "that agree best: better beside depth edges, with 4 sources 3 and 7 times the work (default: halves "
        "for images of up to 0.4 megapixels, else none)",
    )
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1 (default: the GPU if there is one)")
    add("--memory", type=_amount, metavar="GB", help="use at most so much (default: most of what is free)")


def _add_thresholds(add: Callable) -> None:
    least = "least probability to keep; R-MVSNet's paper takes 0.3"
    add("--min-probability", type=_number, default=0.8, metavar="P", help=least)
    add("--max-reprojection", type=_number, default=1.0, metavar="PX", help="in pixels of the images")
    add("--max-relative-depth", type=_number, default=0.01, metavar="R", help="as a share of the depth")
    add("--min-views", type=_count, default=3, metavar="N", help="views that agree, the reference included")
    add(
        "--dynamic",
        action="store_true",
        help="multiply both thresholds by k/4 where k sources agree: strict for few views, loose for many",
    )


def _count(word: str) -> int:
    if not re.fullmatch("0*[1-9][0-9]{0,17}", word):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {word[:40]!r}")
    return int(word)


def _whole(word: str) -> int:
    if not re.fullmatch("-?[0-9]{1,18}", word):
        raise argparse.ArgumentTypeError(f"must be a whole number, not {word[:40]!r}")
    return int(word)


def _number(word: str) -> float:
    number = _float(word)
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"must not be negative, not {word}")
    return number


def _positive(word: str) -> float:
    number = _float(word)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be positive, not {word}")
    return number


def _float(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {word[:40]!r}") from None


def _amount(word: str) -> float:
    if not _positive(word) <= 1e9:
        raise argparse.ArgumentTypeError(f"must be at most a billion, not {word}")
    return float(word)


# --- what the commands do ----------------------------------------------------------------------------


def _reconstruct(options: argparse.Namespace) -> None:
    from .reconstruction import reconstruct

    cloud = reconstruct(
        options.photos,
        options.out,
        size=options.size,
        masks=options.masks,
        matching=options.matching,
        weights=options.weights,
        **_how_to_estimate(options),
        **_thresholds(options),
    )
    _report(options.out, cloud)


def _colmap(options: argparse.Namespace) -> None:
    from .data.colmap import scene_from_colmap

    scene = scene_from_colmap(options.dense, options.scene, options.sources, options.planes)
    print(f"{options.scene}: {len(scene.views)} views, {len(scene.references)} of them with sources")


def _depth(options: argparse.Namespace) -> None:
    from .data.scene import Scene
    from .inference import estimate_scene, how_much_to_enlarge, which_subsets
    from .models import load_pretrained

    scene, network = Scene.open(options.scene), load_pretrained(options.weights)
    how = _how_to_estimate(options) | {"size": options.size and tuple(options.size)}
    how["enlarge"] = how["enlarge"] or how_much_to_enlarge(network, scene, how["size"])
    how["subsets"] = how["subsets"] or which_subsets(scene, how["size"])
    made = estimate_scene(scene, options.out, network, **how)
    there = len(scene.references) - len(made)
    print(
        f"{options.out / 'depth'}: {len(made)} depth maps made" + (f", {there} were there" if there else "")
    )


def _how_to_estimate(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "num_sources": options.sources,
        "depth_num": options.planes,
        "inverse": options.inverse,
        "enlarge": options.enlarge,
        "subsets": options.subsets,
        "device": _device(options.device),
        "memory": options.memory and int(options.memory * 1e9),
    }


def _device(name: str | None) -> str | None:
    import torch

    try:
        torch.empty(0, device=name)
        if name and torch.device(name).type == "meta":
            raise RuntimeError("its tensors hold no numbers.")
    except (RuntimeError, AssertionError) as error:  # torch without CUDA answers with an AssertionError
        raise InputError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from None
    return name


def _fuse(options: argparse.Namespace) -> None:
    from .data.scene import Scene
    from .reconstruction import fuse_scene

    _report(options.out, fuse_scene(Scene.open(options.scene), options.out, **_thresholds(options)))


def _thresholds(options: argparse.Namespace) -> dict[str, float]:
    names = ("min_probability", "max_reprojection", "max_relative_depth", "min_views", "dynamic")
    return {name: vars(options)[name] for name in names}


def _report(out: Path, cloud: Sized) -> None:
    print(f"{out / 'fused.ply'}: {len(cloud)} points; look at them in {out / 'fused.html'}")


def _evaluate(options: argparse.Namespace) -> None:
    cloud, truth = _points(options.cloud), _points(options.truth)
    compare = _compare if options.dtu is None else _compare_as_dtu
    try:
        threshold, metrics = compare(options, cloud, truth)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{options.cloud} and {options.truth} cannot be compared: {error}.") from None
    for name, value in (("threshold", threshold), *metrics._asdict().items()):
        print(f"{name:14}{value:.6g}")


def _compare(options: argparse.Namespace, cloud, truth) -> tuple[float, Any]:
    import numpy as np

    from .evaluation import cloud_metrics, thin_cloud

    threshold = options.threshold or 0.005 * float(np.linalg.norm(np.ptp(truth, axis=0)))
    if not threshold > 0:
        raise InputError(f"{options.truth} has no extent to take a threshold from: give --threshold.")
    if options.thin:
        cloud, truth = (thin_cloud(points, options.thin) for points in (cloud, truth))
    return threshold, cloud_metrics(cloud, truth, threshold, options.max_distance)


def _compare_as_dtu(options: argparse.Namespace, cloud, truth) -> tuple[float, Any]:
    from .evaluation import dtu_metrics, read_observation_mask

    if len(options.dtu) not in (0, 2):
        raise InputError("--dtu takes two files, ObsMask*.mat and Plane*.mat of the same scan, or none.")
    if options.thin or options.max_distance:
        raise InputError("--dtu has its own rules in place of --thin and --max-distance.")
    mask = read_observation_mask(*options.dtu) if options.dtu else None
    threshold = options.threshold or 1.0
    return threshold, dtu_metrics(cloud, truth, mask, threshold)


def _points(path: Path):
    from .data.ply import read_ply

    cloud = read_ply(path)
    if not len(cloud):
        raise InputError(f"{path} has no points.")
    return cloud.points


def _make_data(options: argparse.Namespace) -> None:
    from .data.synthetic import SHIPPED, make_scene

    names = ("layout", "seed", "views", "size", "planes")
    given = {name: vars(options)[name] for name in names if vars(options)[name] is not None}
    if given and not options.layout:
        raise InputError(f"--{next(iter(given))} needs --layout: without it, the two scenes are as they are.")
    shipped = {options.out / name: arguments for name, arguments in SHIPPED.items()}
    scenes = {options.out: given} if given else shipped
    for folder, arguments in scenes.items():
        try:
            make_scene(folder, **arguments, progress=_progress)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{folder} cannot be drawn: {error}.") from None
        print(f"{folder}: done")


def _train(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from .recipe import read_recipe
    from .training import train

    recipe = read_recipe(options.config)
    try:
        data = replace(recipe.data, root=options.root or recipe.data.root)
    except ValueError as error:
        raise InputError(f"--root cannot be used with {options.config}: {error}.") from None
    train(replace(recipe, out=options.out or recipe.out, data=data), _device(options.device))


def _export(options: argparse.Namespace) -> None:
    from . import exercises

    print(exercises.export(options.notebook, options.names, options.chapters))


def _grade(options: argparse.Namespace) -> None:
    from . import exercises
    from .data.formats import atomic_write

    grades = exercises.grade(options.notebook, options.names, time_limit=options.seconds)
    print(*map(_printable, str(grades).splitlines()), sep="\n")
    if options.json:
        with atomic_write(options.json) as file:
            file.write(grades.json().encode())


def _progress(items: Iterable) -> Iterable:
    from tqdm import tqdm

    return tqdm(items, desc="photographs", unit="view")
