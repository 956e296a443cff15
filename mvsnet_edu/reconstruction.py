"""From a folder of photos to a point cloud: cameras, a scene, depth maps, fusion.

Cameras and sparse points come from pycolmap, on the CPU. Each stage is a function of its own; the function
:func:`reconstruct` chains them, and keeps what each one made.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .data.colmap import cover, is_whole, scene_from_colmap
from .data.formats import atomic_write, read_image, reason, write_image
from .data.photos import find_photos, read_mask, read_photo
from .data.ply import PointCloud, read_ply, write_ply
from .data.scene import Scene
from .errors import InputError
from .fusion import fuse_depth_maps
from .inference import estimate_scene, how_much_to_enlarge, read_estimates, which_subsets
from .locking import locked
from .models import load_pretrained
from .steps import Steps, digest
from .subsets import Subsets

__all__ = [
    "PreparedPhoto",
    "fuse_scene",
    "match_photos",
    "prepare_photos",
    "reconstruct",
    "register_photos",
    "undistort_photos",
]

FEATURE_SIZE = 1600  # longest side on which features are sought; more cost time and gain next to nothing
SMALL = 1000  # features of smaller photos are also sought in the photo enlarged twice
FEATURES = 4096  # about so many in a photo at most; the time to match two photos grows with the square
SPARE = 6  # COLMAP finds three times as many in mere noise, and SQLite's journal holds everything once more
PHOTO_BYTES, PAIR_BYTES = SPARE * FEATURES * 152, SPARE * FEATURES * 16  # at most, in the database
LEAST_POINTS = 10  # in the whole scene
LEAST = 3  # photos; with two, no depth is confirmed by a third view
NEIGHBOURS = 10  # in a sequence, a photo is matched with so many after it, and with some farther ones
SEED = 0
ADVICE = (
    "take more photos, each of which shares two thirds of what it shows with the next one, and take a step "
    "aside between them instead of turning on the spot"
)


class PreparedPhoto(NamedTuple):
    """One readable photo, as :func:`prepare_photos` leaves it.

    Attributes:
        file: its new name.
        name: its old name.
        size: (W, H) in pixels, upright and shrunk.
        focal: focal length in pixels, None if the photo does not tell.
        camera: maker and model, empty if the photo does not tell.
    """

    file: str
    name: str
    size: tuple[int, int]
    focal: float | None
    camera: str


def reconstruct(
    photos: str | PathLike[str],
    out: str | PathLike[str],
    *,
    size: int = 640,
    num_sources: int = 4,
    depth_num: int | None = None,
    inverse: bool = False,
    masks: str | PathLike[str] | None = None,
    matching: str = "exhaustive",
    weights: str = "mvsnet",
    device: torch.device | str | None = None,
    memory: int | None = None,
    enlarge: int | None = None,
    subsets: Subsets | None = None,
    **thresholds: Any,
) -> PointCloud:
    """Turn a folder of photos into a point cloud.

    What it writes into ``out``: ``photos/`` (upright), ``masks/``, ``colmap/`` (matches, sparse model,
    undistorted photos), ``scene/`` (MVSNet's format), ``depth/``, ``probability/`` and ``cams/``, then
    ``fused.ply`` and ``fused.html``. Called again, it repeats only what has changed since; stopped at any
    moment, it loses at most the step in hand.

    Args:
        photos: a folder of photos of something that does not move.
        out: a new folder, or that of an earlier call.
        size: longest side of the images that the network sees, in pixels.
        num_sources: source views for each view.
        depth_num: number of depth planes; by default what the view with the widest range needs.
        inverse: spread the planes evenly over 1 / depth.
        masks: folder with an image for some or all photos, of the same name up to the suffix; where it is
            black, the photo is ignored.
        matching: "exhaustive" compares all pairs of photos, "sequential" those close in the order of names.
        weights: name of shipped weights, or a file.
        device: for the network; by default the GPU if there is one, else the CPU.
        memory: bytes for the network to work with; by default most of what is free.
        enlarge: how many times as wide and as high the network sees the images; by default what
            :func:`.inference.how_much_to_enlarge` says.
        subsets: which sources get a hearing of their own; by default what :func:`.inference.which_subsets`
            says.
        **thresholds: see :func:`.fusion.fuse_depth_maps`.

    Returns:
        the cloud, in the unit that structure from motion has chosen.

    Raises:
        InputError: fewer than three photos can be read or fit together, something cannot be used, or another
            process is writing to the folder.

    Source: ours.
    """
    _pycolmap()
    photos, out = Path(photos), Path(out)
    if matching not in ("exhaustive", "sequential"):
        raise InputError(f"Photos can be matched exhaustive or sequential, not {matching}.")
    if photos.resolve().is_relative_to(out.resolve()):
        raise InputError(f"{photos} lies in {out}, which is for the results: choose another folder for them.")
    found = [digest(find_photos(photos)), digest(find_photos(masks)) if masks else None]
    network = load_pretrained(weights)
    steps = Steps(out)
    with locked(out):
        scene = _find_scene(steps, found, photos, masks, matching, size, depth_num)
        options = {"device": device, "inverse": inverse, "memory": memory}
        options["enlarge"] = enlarge or how_much_to_enlarge(network, scene)
        options["subsets"] = subsets or which_subsets(scene)
        steps.timed("depth", lambda: estimate_scene(scene, out, network, num_sources, depth_num, **options))
        fused, made = [_estimated(out), thresholds], [out / "fused.ply", out / "fused.html"]
        steps.run("cloud", fused, made, lambda: fuse_scene(scene, out, _scene_masks(out), **thresholds))
        return read_ply(out / "fused.ply")


def _find_scene(
    steps: Steps,
    found: list[str | None],
    photos: Path,
    masks: str | PathLike[str] | None,
    matching: str,
    size: int,
    depth_num: int | None,
) -> Scene:
    """The steps from photos to a scene; ``found`` is the fingerprint of photos and masks."""
    out, work = steps.out, steps.out / "colmap"
    longest, made = max(size, FEATURE_SIZE), [out / "photos", out / "masks"]
    steps.run("photos", [found, longest], made, lambda: prepare_photos(photos, out, longest, masks))
    steps.run("matches", matching, [work / "database.db"], lambda: match_photos(out, matching), resumes=True)
    steps.run("cameras", None, [work / "sparse"], lambda: register_photos(out))
    dense, made = [size, depth_num], [work / "dense", out / "scene"]
    stale = [out / name for name in ("depth", "probability", "cams", "settings.json")]
    steps.run("scene", dense, made, lambda: _make_scene(out, size, depth_num), stale=stale)
    return Scene.open(out / "scene")


def _estimated(out: Path) -> list[str]:
    return [digest((out / name).iterdir()) for name in ("depth", "probability", "cams")]


# --- photos ------------------------------------------------------------------------------------------


def prepare_photos(
    photos: str | PathLike[str],
    out: str | PathLike[str],
    longest: int = FEATURE_SIZE,
    masks: str | PathLike[str] | None = None,
) -> list[PreparedPhoto]:
    """Write the photos upright, as RGB and not too large, and their masks beside them.

    A photo that cannot be read is named on stderr and left out.

    Args:
        photos: the folder of the photos.
        out: gets ``photos/``, with ``photos.json`` about them, and ``masks/`` if there are masks.
        longest: photos with a longer side are shrunk to that, in pixels.
        masks: the folder of the masks; see :func:`reconstruct`.

    Returns:
        the photos, in the order of their names.

    Raises:
        InputError: too few can be read, or a mask does not fit.

    Source: ours.
    """
    out, found, prepared = Path(out), find_photos(photos), []
    mask_of = _masks_by_stem(masks, found)
    for path in _progress(found, "photos"):
        try:
            photo = read_photo(path, longest)
        except InputError as error:
            print(f"{path.name} is left out: {error}", file=sys.stderr)
            continue
        file = f"{len(prepared):04d}_{re.sub('[^A-Za-z0-9-]+', '_', path.stem)}.jpg"
        size = (photo.image.shape[2], photo.image.shape[1])
        write_image(out / "photos" / file, photo.image)
        if masks:
            _write_mask(out / "masks" / f"{file}.png", mask_of.get(path.stem), size)
        prepared.append(PreparedPhoto(file, path.name, size, photo.focal, photo.camera))
    if len(prepared) < LEAST:
        raise InputError(
            f"{photos} has {len(prepared)} photos that can be read; {LEAST} are needed at least."
        )
    with atomic_write(out / "photos" / "photos.json") as file:
        file.write(json.dumps([photo._asdict() for photo in prepared], indent=1).encode())
    return prepared


def _masks_by_stem(folder: str | PathLike[str] | None, photos: Sequence[Path]) -> dict[str, Path]:
    masks = {path.stem: path for path in find_photos(folder)} if folder else {}
    for stem in sorted(set(masks) - {path.stem for path in photos}):
        raise InputError(f"{masks[stem]} is a mask without a photo of that name.")
    return masks


def _write_mask(path: Path, mask: Path | None, size: tuple[int, int]) -> None:
    """In the form that COLMAP takes; white where the photo has no mask."""
    keep = torch.ones(size[::-1], dtype=torch.bool) if mask is None else read_mask(mask, size)
    write_image(path, keep.float().expand(3, -1, -1))


def _prepared(out: Path) -> list[PreparedPhoto]:
    path = out / "photos" / "photos.json"
    try:
        rows = json.loads(path.read_bytes())
        return [PreparedPhoto(**row | {"size": tuple(row["size"])}) for row in rows]
    except (ValueError, TypeError, LookupError) as error:
        raise InputError(f"{path} is damaged: remove it, and the photos are prepared again.") from error


# --- cameras -----------------------------------------------------------------------------------------


def _pycolmap() -> Any:
    try:
        import pycolmap
    except ImportError:
        message = 'Cameras of photos need pycolmap: pip install "mvsnet_edu[photos]".'
        raise InputError(message) from None
    return pycolmap


@contextmanager
def _quiet(folder: Path) -> Iterator[Any]:
    """pycolmap, which writes dozens of lines about each photo, with its mouth shut, at work in a folder."""
    pycolmap = _pycolmap()
    before, pycolmap.logging.minloglevel = pycolmap.logging.minloglevel, pycolmap.logging.FATAL.value
    pycolmap.set_random_seed(SEED)
    try:
        yield pycolmap
    except RuntimeError as error:  # of a full disk it tells no more than that a database cannot be opened
        message = f"COLMAP cannot work in {folder}, whose disk may be full ({reason(error)})."
        raise InputError(message) from error
    finally:
        pycolmap.logging.minloglevel = before


def match_photos(out: str | PathLike[str], matching: str = "exhaustive") -> None:
    """Find what photos have in common: SIFT features, matched between pairs and checked by epipolar geometry.

    Photos of one size, camera and focal length are taken to have one lens in common. Goes on where an
    earlier call was stopped.

    Args:
        out: has ``photos/`` and perhaps ``masks/``; gets ``colmap/database.db``.
        matching: "exhaustive" or "sequential"; see :func:`reconstruct`.

    Raises:
        InputError: the disk is full, or nearly so.

    Source: COLMAP (Schönberger and Frahm 2016).
    """
    out = Path(out)
    photos, database = _prepared(out), out / "colmap" / "database.db"
    with _quiet(out / "colmap") as pycolmap:
        if not database.exists():
            _register_names(pycolmap, photos, out / "photos", database)
        _extract(pycolmap, photos, out, database)
        _match(pycolmap, photos, _pairs(len(photos), matching), database)


def _register_names(pycolmap: Any, photos: Sequence[PreparedPhoto], folder: Path, database: Path) -> None:
    """A database with the photos and their lenses, in an order that does not depend on threads."""
    with _scratch(database.with_suffix(".tmp")) as scratch:
        new = scratch / database.name
        pycolmap.Database.open(new).close()
        for (size, focal, _), files in _by_lens(photos).items():
            options = pycolmap.ImageReaderOptions()
            options.camera_model = "SIMPLE_RADIAL"
            if focal:
                options.camera_params = f"{focal},{size[0] / 2},{size[1] / 2},0"
            pycolmap.import_images(new, folder, pycolmap.CameraMode.SINGLE, files, options)
        for stale in database.parent.glob(f"{database.name}-*"):  # journals of an earlier database: SQLite
            stale.unlink()  # would apply them to this one
        new.replace(database)


def _by_lens(photos: Sequence[PreparedPhoto]) -> dict[tuple, list[str]]:
    lenses: dict[tuple, list[str]] = {}
    for photo in photos:
        lenses.setdefault((photo.size, photo.focal and round(photo.focal), photo.camera), []).append(
            photo.file
        )
    return lenses


def _extract(pycolmap: Any, photos: Sequence[PreparedPhoto], out: Path, database: Path) -> None:
    reader, options = pycolmap.ImageReaderOptions(), pycolmap.FeatureExtractionOptions()
    if (out / "masks").is_dir():
        reader.mask_path = out / "masks"
    options.max_image_size, options.sift.max_num_features = FEATURE_SIZE, FEATURES
    options.sift.first_octave = -1 if max(max(photo.size) for photo in photos) < SMALL else 0
    workers = os.cpu_count() or 1
    with _progress(photos, "features") as bar:
        for start in range(0, len(photos), workers):
            files = [photo.file for photo in photos[start : start + workers]]
            _check_room(database, len(files) * PHOTO_BYTES)
            pycolmap.extract_features(
                database,
                out / "photos",
                files,
                reader_options=reader,
                extraction_options=options,
                device=pycolmap.Device.cpu,
            )
            bar.update(len(files))


def _pairs(total: int, matching: str) -> dict[int, list[int]]:
    """For each photo the later ones to match it with.

    >>> _pairs(4, "exhaustive")
    {0: [1, 2, 3], 1: [2, 3], 2: [3]}
    >>> _pairs(100, "sequential")[0]
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 32, 64]
    """
    everyone = matching == "exhaustive"
    near = [s for s in range(1, total) if everyone or s <= NEIGHBOURS or s & (s - 1) == 0]
    return {first: [first + s for s in near if first + s < total] for first in range(total - 1)}


def _match(
    pycolmap: Any, photos: Sequence[PreparedPhoto], pairs: dict[int, list[int]], database: Path
) -> None:
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SEED
    pairing, listed = pycolmap.ImportedPairingOptions(), database.with_name("pairs.tmp")
    pairing.match_list_path = listed
    with _passing(listed), _progress(range(sum(map(len, pairs.values()))), "matches", "pair") as bar:
        for first, others in pairs.items():
            with atomic_write(listed) as file:
                file.write(
                    "".join(f"{photos[first].file} {photos[other].file}\n" for other in others).encode()
                )
            _check_room(database, len(others) * PAIR_BYTES)
            pycolmap.match_image_pairs(
                database,
                pairing_options=pairing,
                verification_options=verification,
                device=pycolmap.Device.cpu,
            )
            bar.update(len(others))


def _check_room(database: Path, needed: int) -> None:
    """In time, as a thread of pycolmap's own that finds the disk full ends the process."""
    free = shutil.disk_usage(database.parent).free
    if free < needed:
        more, left = f"{needed / 1e6:.1f} MB more", f"{free / 1e6:.1f} MB left"
        raise InputError(f"{database} may need {more}, and its disk has {left}.")


def register_photos(out: str | PathLike[str]) -> list[str]:
    """Find where the photos were taken from, their focal lengths and the points that they share.

    Photos that do not fit are named on stderr. On one machine the result is always the same.

    Args:
        out: has ``photos/`` and ``colmap/database.db``; gets ``colmap/sparse/``, a COLMAP model.

    Returns:
        the old names of the registered photos.

    Raises:
        InputError: fewer than three photos fit together.

    Source: COLMAP's incremental mapper (Schönberger and Frahm 2016).
    """
    out = Path(out)
    photos, work = _prepared(out), out / "colmap"
    with _quiet(out / "colmap") as pycolmap, _scratch(work / "sparse.tmp") as scratch:
        with _progress(photos, "cameras") as bar:
            models = pycolmap.incremental_mapping(
                work / "database.db",
                out / "photos",
                scratch,
                _mapper_options(pycolmap),
                next_image_callback=bar.update,
            )
        model = max(models.values(), key=lambda model: model.num_reg_images(), default=None)
        there = {model.image(number).name for number in model.reg_image_ids()} if model else set()
        _check_registered(photos, there, model.num_points3D() if model else 0)
        _write_model(model, work / "sparse")
    return [photo.name for photo in photos if photo.file in there]


def _mapper_options(pycolmap: Any) -> Any:
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size, options.extract_colors = LEAST, False
    options.num_threads = options.mapper.num_threads = 1  # sums by several threads differ from run to run
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = SEED
    return options


def _check_registered(photos: Sequence[PreparedPhoto], there: set[str], points: int) -> None:
    if len(there) < LEAST:
        raise InputError(f"Only {len(there)} of {len(photos)} photos fit together: {ADVICE}.")
    if points < LEAST_POINTS:  # photos taken on the spot fit together, but show no depth
        raise InputError(f"The photos share only {points} points whose depth can be told: {ADVICE}.")
    for photo in photos:
        if photo.file not in there:
            print(f"{photo.name} is left out: it shares too little with the other photos.", file=sys.stderr)
    print(f"{len(there)} of {len(photos)} photos fit together", file=sys.stderr)


# --- the scene ---------------------------------------------------------------------------------------


def _make_scene(out: Path, size: int, depth_num: int | None) -> None:
    undistort_photos(out, size)
    scene_from_colmap(out / "colmap" / "dense", out / "scene", depth_num=depth_num)


def undistort_photos(out: str | PathLike[str], size: int) -> None:
    """Resample the photos, and their masks, as cameras without distortion would have taken them.

    Args:
        out: has ``photos/``, perhaps ``masks/``, and ``colmap/sparse/``; gets ``colmap/dense/``, laid out as
            COLMAP's image_undistorter does.
        size: the longest side is shrunk to that, in pixels.

    Source: COLMAP's image_undistorter.
    """
    out = Path(out)
    dense = out / "colmap" / "dense"
    with _quiet(out / "colmap") as pycolmap:
        model = pycolmap.Reconstruction(out / "colmap" / "sparse")
        new = {}
        images = sorted(map(model.image, model.reg_image_ids()), key=lambda image: image.name)
        for image in _progress(images, "undistorted"):
            old, file = model.cameras[image.camera_id], Path(image.name).with_suffix(".png").name
            for source, target in _sources(out, image.name):
                pixels, camera = _undistort(pycolmap, read_image(source), old, size)
                write_image(dense / target / file, pixels)
            new[image.camera_id] = camera
            image.name = file
        for number, camera in new.items():
            model.cameras[number].model, model.cameras[number].params = camera.model, camera.params
            model.cameras[number].width, model.cameras[number].height = camera.width, camera.height
        _write_model(model, dense / "sparse")


def _write_model(model: Any, folder: Path) -> None:
    """All files of a COLMAP model or none; pycolmap does not tell when there was no room for them."""
    with _scratch(folder.with_name(f"{folder.name}.new")) as new:
        model.write_binary(new)
        if not is_whole(new):
            raise InputError(f"{folder} cannot be written: the disk may be full.")
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)


def _sources(out: Path, name: str) -> list[tuple[Path, str]]:
    """A photo and, if there is one, its mask, each with the folder that it goes to; the photo last."""
    mask = out / "masks" / f"{name}.png"
    return [*([(mask, "masks")] if mask.exists() else []), (out / "photos" / name, "images")]


def _undistort(pycolmap: Any, image: Tensor, camera: Any, size: int) -> tuple[Tensor, Any]:
    """The image (3, H, W) without distortion and at most so large, and its camera."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).contiguous().numpy()  # (H, W, 3)
    options = pycolmap.UndistortCameraOptions()
    straight, camera = pycolmap.undistort_image(options, pycolmap.Bitmap.from_array(pixels), camera)
    image = torch.from_numpy(straight.to_array()).permute(2, 0, 1) / 255  # (3, H, W)
    factor = min(1.0, size / max(camera.width, camera.height))
    camera.rescale(round(factor * camera.width), round(factor * camera.height))
    return cover(image, (camera.width, camera.height)), camera


def _scene_masks(out: Path) -> dict[int, Tensor] | None:
    """For each view of the scene which pixels count, (H, W) bool; None if there are no masks."""
    folder, scene = out / "colmap" / "dense" / "masks", Scene.open(out / "scene")
    if not folder.is_dir():
        return None
    names = dict(line.split(" ", 1) for line in (scene.folder / "photos.txt").read_text().splitlines())
    masks = {}
    for view in scene.views:
        H, W = scene.image(view).shape[1:]
        masks[view] = cover(read_image(folder / names[f"{view:08d}"]), (W, H))[0] > 0.5
    return masks


# --- the cloud ---------------------------------------------------------------------------------------


def fuse_scene(
    scene: Scene,
    out: str | PathLike[str],
    masks: dict[int, Tensor] | None = None,
    **thresholds: Any,
) -> PointCloud:
    """Fuse the depth maps of a scene, and write the cloud and a page to look at it.

    Args:
        scene: what was looked at.
        out: has what :func:`.inference.estimate_scene` wrote; gets ``fused.ply`` and ``fused.html``.
        masks: for some views which pixels count, (H, W) bool at the size of the view's image.
        **thresholds: see :func:`.fusion.fuse_depth_maps`.

    Returns:
        the cloud.

    Raises:
        InputError: a depth map is missing or broken, no point passes the filters, or another process is
            writing to the folder.

    Source: ours.
    """
    out = Path(out)
    with locked(out) if out.is_dir() else nullcontext():  # where there is nothing, nothing is made
        views, depths, probabilities, *rest = read_estimates(scene, out)
        if masks:
            everything = [torch.ones(image.shape[1:], dtype=torch.bool) for image in rest[0]]
            thresholds["masks"] = [masks.get(v, all_) for v, all_ in zip(views, everything, strict=True)]
        sources = [
            [views.index(source) for source in scene.sources(view) if source in views] for view in views
        ]
        cloud = fuse_depth_maps(depths, probabilities, *rest, sources=sources, **thresholds)
        if not len(cloud):
            raise InputError(f"{out} has no point that passes: lower --min-probability or --min-views.")
        _write_cloud(cloud, scene, out, len(views), (rest[-1][0], rest[-2][0]))
    return cloud


def _write_cloud(
    cloud: PointCloud, scene: Scene, out: Path, views: int, camera: tuple[Tensor, Tensor]
) -> None:
    """fused.ply, and the page, which shows the cloud as a camera (extrinsics, intrinsics) sees it."""
    from .figures import Viewpoint, point_cloud

    folder, made = scene.folder.resolve(), out.resolve()  # a scene within the results has no name of its own
    name = made.name if folder.is_relative_to(made) else folder.name
    name = name.encode(errors="replace").decode()  # a folder's name may be no text
    title = f"{name}: {len(cloud)} points from {views} views"
    start = Viewpoint.of_camera(*camera, cloud.points)
    page = point_cloud(cloud.points, cloud.colors, cloud.normals, view=start, title=title)
    write_ply(out / "fused.ply", cloud)
    page.save(out / "fused.html")


# --- helpers -----------------------------------------------------------------------------------------


def _progress(items: Sequence, what: str, unit: str = "photo") -> Any:
    from tqdm import tqdm

    return tqdm(items, desc=what, unit=unit, leave=False)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder that goes away again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _passing(path: Path) -> Iterator[None]:
    """A file that goes away again."""
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
