"""Every reader of the package, and every command, each with small files that it reads."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from hostile import Folder, Reader, json_of
from PIL import Image
from scipy.io import savemat

from mvsnet_edu import MVSNet
from mvsnet_edu.checkpoints import save_network
from mvsnet_edu.cli import main
from mvsnet_edu.data import DTU, BlendedMVS, Scene, SceneFolders, synthetic
from mvsnet_edu.data.colmap import read_model, scene_from_colmap
from mvsnet_edu.data.formats import image_size, read_cam, read_image, read_pair, read_pfm
from mvsnet_edu.data.photos import find_photos, read_mask, read_photo
from mvsnet_edu.data.ply import read_ply
from mvsnet_edu.errors import InputError
from mvsnet_edu.evaluation import dtu_metrics, read_observation_mask
from mvsnet_edu.exercises import assignment, grading, statement
from mvsnet_edu.foreign import XY_GUO, XY_GUO_NAMES
from mvsnet_edu.models import load_pretrained
from mvsnet_edu.recipe import read_recipe
from mvsnet_edu.training import train

STILL_LIFE = Path(__file__).parent.parent / "data" / "still_life"
W, H = 32, 24
VIEWS = range(3)

# --- the files of a scene ----------------------------------------------------------------------------


def cam(view: int, tail: str = "1.0 0.25 8 2.75", shrink: int = 1) -> bytes:
    pose = f"1 0 0 {-0.1 * view}\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    lens = f"{40 / shrink} 0 {W / 2 / shrink}\n0 {38 / shrink} {H / 2 / shrink}\n0 0 1\n"
    return f"extrinsic\n{pose}\nintrinsic\n{lens}\n{tail}\n".encode()


PAIR = b"3\n0\n2 1 9.5 2 8.25\n1\n2 0 9.5 2 3.125\n2\n1 1 3.0\n"


def pfm(width: int = W // 4, height: int = H // 4, value: float = 2.0, kind: str = "Pf") -> bytes:
    values = np.full((height, width, 3 if kind == "PF" else 1), value, "<f4")
    return f"{kind}\n{width} {height}\n-1.0\n".encode() + values.tobytes()


def picture(mode: str = "RGB", suffix: str = "png", seed: int = 0, **options) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (H, W, 3), np.uint8)
    image, buffer = Image.fromarray(noise), io.BytesIO()
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    kinds = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "webp": "WEBP", "bmp": "BMP", "gif": "GIF"}
    (image if mode == "I;16" else image.convert(mode)).save(buffer, kinds[suffix], **options)
    return buffer.getvalue()


def exif() -> Image.Exif:
    """Turned by 90 degrees, taken by a lens of 4.2 mm."""
    notes = Image.Exif()
    notes[0x0112], notes[0x010F], notes[0x0110] = 6, "Maker", "Model 中文"
    notes.get_ifd(0x8769).update({0x920A: 4.2, 0xA405: 26, 0xA20E: 300.0, 0xA210: 3, 0xA002: W, 0xA003: H})
    return notes


PICTURES: dict[str, Callable[[], bytes]] = {
    "rgb.png": picture,
    "deep.png": lambda: picture("I;16"),
    "grey.png": lambda: picture("L"),
    "bits.png": lambda: picture("1"),
    "palette.png": lambda: picture("P", transparency=3),
    "alpha.png": lambda: picture("RGBA"),
    "photo.jpg": lambda: picture(suffix="jpg", exif=exif()),
    "progressive.jpg": lambda: picture("L", "jpg", progressive=True),
    "ink.jpg": lambda: picture("CMYK", "jpg"),
    "ink.tif": lambda: picture("CMYK", "tif", compression="tiff_lzw"),
    "deep.tif": lambda: picture("I;16", "tif", compression="tiff_adobe_deflate"),
    "lab.tif": lambda: picture("LAB", "tif"),
    "a.webp": lambda: picture(suffix="webp"),
    "a.bmp": lambda: picture(suffix="bmp"),
    "turned.tif": lambda: picture(suffix="tif", exif=exif()),
}


@cache
def scene(depth: bool = True) -> Folder:
    files = {"pair.txt": PAIR}
    for view in VIEWS:
        files[f"images/{view:08d}.png"] = picture(seed=view)
        files[f"cams/{view:08d}_cam.txt"] = cam(view)
        if depth:
            files[f"depths/{view:08d}.pfm"] = pfm()
    return files


@cache
def estimates() -> Folder:
    """A scene, and what a network that sees the plane z = 2 writes about it."""
    files = dict(scene(depth=False))
    for view in VIEWS:
        files[f"made/depth/{view:08d}.pfm"] = pfm()
        files[f"made/probability/{view:08d}.pfm"] = pfm(value=0.9)
        files[f"made/cams/{view:08d}_cam.txt"] = cam(view, shrink=4)
    return files


@cache
def dtu() -> Folder:
    files = {"Cameras/pair.txt": PAIR}
    for view in VIEWS:
        files[f"Cameras/train/{view:08d}_cam.txt"] = cam(view, "425.0 2.5", 4)
        files[f"Depths/scan3_train/depth_map_{view:04d}.pfm"] = pfm(value=600)
        files[f"Rectified/scan3_train/rect_{view + 1:03d}_3_r5000.png"] = picture(seed=view)
    return files


@cache
def blended() -> Folder:
    files = {"validation_list.txt": b"castle\n", "castle/cams/pair.txt": PAIR}
    for view in VIEWS:
        files[f"castle/cams/{view:08d}_cam.txt"] = cam(view, "500.0 2.0 128 754.0")
        files[f"castle/rendered_depth_maps/{view:08d}.pfm"] = pfm(W, H, 600)
        files[f"castle/blended_images/{view:08d}_masked.jpg"] = picture(suffix="jpg", seed=view)
    return files


@cache
def photos() -> Folder:
    """Four photographs, just large enough to find the cameras, and a mask for one of them."""
    mask = io.BytesIO()
    Image.new("L", (200, 160), 255).save(mask, "PNG")
    files = {"masks/1.png": mask.getvalue()}
    for view, path in enumerate(sorted((STILL_LIFE / "images").iterdir())[:4]):
        buffer = io.BytesIO()
        Image.open(path).resize((200, 160)).save(buffer, "JPEG", quality=95)
        files[f"photos/{view}.jpg"] = buffer.getvalue()
    return files


# --- clouds ------------------------------------------------------------------------------------------


def ply(kind: str = "ascii", faces: bool = True, points: int = 30) -> bytes:
    names = [f"property float {name}\n" for name in ("x", "y", "z")]
    names += [f"property uchar {name}\n" for name in ("red", "green", "blue")]
    face = "element face 2\nproperty list uchar int vertex_indices\n" if faces else ""
    header = f"ply\nformat {kind} 1.0\ncomment made by hand\nelement vertex {points}\n{''.join(names)}{face}"
    rows = [(k / 7, k % 5, 2.5 + k % 3, k, 2 * k, 3 * k) for k in range(points)]
    lists = [(3, 0, 1, 2), (4, 0, 1, 2, 3)] if faces else []
    if kind == "ascii":
        body = "".join(" ".join(map(str, row)) + "\n" for row in rows + lists).encode()
    else:
        order = "<" if "little" in kind else ">"
        body = b"".join(struct.pack(f"{order}3f3B", *row) for row in rows)
        body += b"".join(struct.pack(f"{order}B{len(row) - 1}i", *row) for row in lists)
    return f"{header}end_header\n".encode() + body


@cache
def clouds() -> Folder:
    kinds = ("ascii", "binary_little_endian", "binary_big_endian")
    return {f"{kind}.ply": ply(kind) for kind in kinds} | {"plain.ply": ply(kinds[1], faces=False)}


@cache
def mat() -> Folder:
    files = {}
    box = np.array([[-5.0, -5, -5], [25, 25, 25]])
    for name, values in {
        "mask.mat": {"ObsMask": np.ones((4, 5, 6), np.uint8), "BB": box, "Res": 10.0},
        "plane.mat": {"P": np.array([[0.0], [0], [1], [1]])},
    }.items():
        buffer = io.BytesIO()
        savemat(buffer, values, do_compression=name.startswith("mask"))
        files[name] = buffer.getvalue()
    return files


# --- COLMAP ------------------------------------------------------------------------------------------

POINTS = [(1 + 7 * k, (0.1 * (k % 5) - 0.2, 0.05 * (k % 7) - 0.1, 2 + 0.1 * k)) for k in range(15)]
NAMES = ["a photo 1.png", "b.png", "c.png"]


@cache
def colmap_text() -> Folder:
    ids = " ".join(f"{k}.5 {k}.5 {number}" for k, (number, _) in enumerate(POINTS))
    images = [f"{k + 1} 1 0 0 0 {-0.1 * k} 0 0 4 {name}\n{ids} 3.5 4.5 -1\n" for k, name in enumerate(NAMES)]
    points = [f"{n} {x} {y} {z} 9 9 9 0.5 1 2 2 3\n" for n, (x, y, z) in POINTS]
    files = {
        "sparse/cameras.txt": f"# a comment\n4 PINHOLE {W} {H} 40.0 38.0 16 12\n".encode(),
        "sparse/images.txt": ("# a comment\n" + "".join(images)).encode(),
        "sparse/points3D.txt": "".join(points).encode(),
    }
    return files | {f"images/{name}": picture(seed=k) for k, name in enumerate(NAMES)}


@cache
def colmap_binary() -> Folder:
    camera = struct.pack("<QIiQQ4d", 1, 4, 1, W, H, 40, 38, 16, 12)
    images = struct.pack("<Q", len(NAMES))
    for k, name in enumerate(NAMES):
        images += struct.pack("<I7dI", k + 1, 1, 0, 0, 0, -0.1 * k, 0, 0, 4) + name.encode() + b"\0"
        images += struct.pack("<Q", len(POINTS) + 1)
        images += b"".join(struct.pack("<ddQ", 1, 1, n) for n in [n for n, _ in POINTS] + [2**64 - 1])
    points = struct.pack("<Q", len(POINTS))
    for n, xyz in POINTS:
        points += struct.pack("<Q3d3BdQ2I", n, *xyz, 9, 9, 9, 0.5, 1, 1, 1)
    files = {"sparse/cameras.bin": camera, "sparse/images.bin": images, "sparse/points3D.bin": points}
    return files | {f"images/{name}": picture(seed=k) for k, name in enumerate(NAMES)}


# --- weights, runs, recipes, notebooks ---------------------------------------------------------------


@cache
def weights() -> Folder:
    with contextlib.suppress(FileExistsError):
        Path("captured").mkdir()
    path = Path("captured") / "ours.safetensors"
    torch.manual_seed(0)
    save_network(MVSNet(refine=False), path)
    return {"ours.safetensors": path.read_bytes()}


@cache
def foreign_weights() -> Folder:
    """One of our networks under the names of xy-guo's."""
    torch.manual_seed(0)
    theirs = {ours: name for name, ours in XY_GUO_NAMES.items()}
    state = {}
    for name, value in MVSNet(**XY_GUO).state_dict().items():
        name = re.sub(r"(tail\.[03])\.([12])\.", lambda match: f"{match[1]}.{int(match[2]) - 1}.", name)
        known = next(ours for ours in theirs if name.startswith(f"{ours}."))
        state[name.replace(known, theirs[known], 1)] = value
    buffer = io.BytesIO()
    torch.save({"model": state}, buffer)
    return {"model.ckpt": buffer.getvalue()}


RECIPE = b"""\
seed = 3
report = 1
[network]
refine = false
[data]
kind = "generated"
uses = 2
slots = 2
camera_error = 0.5
workers = 0
[optimizer]
kind = "adamw"
clip = 2.0
ema = 0.5
[validation]
every = 1
samples = 1
[[stage]]
steps = 1
rate = 1e-3
views = [2, 3]
size = [32, 32]
depth_num = 8
enlarge = [1]
"""


def recipe() -> Folder:
    return {"mine.toml": RECIPE}


@cache
def run_folder() -> Folder:
    """A run that has come to its end."""
    Path("mine.toml").write_bytes(RECIPE)
    _silently(lambda: train(read_recipe("mine.toml"), "cpu"))
    files = {f"run/{name}": Path("runs/mine", name).read_bytes() for name in ("state.pt", "log.jsonl")}
    return files | {"mine.toml": RECIPE}


@cache
def notebook() -> Folder:
    chosen = [statement(name) for name in ("count-planes", "camera-center", "less-k")]
    book = assignment.assignment(chosen)
    solution = "def count_planes(depth_min, depth_max, interval):\n    return 1"
    book["cells"].append({"cell_type": "code", "source": solution, "outputs": [], "metadata": {}})
    return {"week 1.ipynb": json_of(book)}


# --- reading -----------------------------------------------------------------------------------------


def _finite(*tensors: torch.Tensor) -> None:
    for tensor in tensors:
        assert tensor.float().isfinite().all(), "numbers that are not finite"


def _only(folder: Path, *patterns: str) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.rglob(pattern))]


def _cam(folder: Path) -> None:
    camera = read_cam(folder / "00000000_cam.txt")
    _finite(camera.extrinsics, camera.intrinsics, torch.linalg.inv(camera.intrinsics))
    depths = camera.depth_values(camera.depth_num or 8)
    _finite(depths)
    assert (depths > 0).all() and depths[0] < depths[-1], f"depths from {depths[0]} to {depths[-1]}"


def _pair(folder: Path) -> None:
    for ref, sources in read_pair(folder / "pair.txt").items():
        assert ref not in dict(sources)


def _images(folder: Path) -> None:
    for path in _only(folder, "*"):
        image = read_image(path)
        assert image.min() >= 0 and image.max() <= 1 and image.shape[1:] == image_size(path)[::-1]


def _photos(folder: Path) -> None:
    for path in find_photos(folder):
        photo = read_photo(path, longest=30)
        assert photo.image.min() >= 0 and photo.image.max() <= 1 and max(photo.image.shape[1:]) <= 30
        assert photo.focal is None or 0 < photo.focal < float("inf")
        with contextlib.suppress(InputError):
            read_mask(path, (W, H))


def _ply(folder: Path) -> None:
    for path in _only(folder, "*.ply"):
        assert np.isfinite(read_ply(path).points).all(), "points that are not finite"


def _mat(folder: Path) -> None:
    mask = read_observation_mask(folder / "mask.mat", folder / "plane.mat")
    points = np.random.default_rng(0).uniform(0, 20, (50, 3))
    with contextlib.suppress(ValueError):
        dtu_metrics(points, points + 0.1, mask)


def _sample(sample) -> None:
    _finite(sample.images, sample.intrinsics, sample.extrinsics, sample.depth_values, sample.depth_interval)
    if sample.ground_truth is not None:
        _finite(sample.ground_truth)


def _scene(folder: Path) -> None:
    opened = Scene.open(folder)
    for view in opened.references:
        _sample(opened.sample(view, num_sources=2, depth_num=4))


def _dataset(make: Callable) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        samples = make(folder)
        for k in range(len(samples)):
            _sample(samples[k])

    return read


def _colmap(folder: Path) -> None:
    model = read_model(folder / "sparse")
    assert all(tensor.isfinite().all() for tensor in (model.points, model.intrinsics, model.extrinsics))
    written = Path("out") / "scene"
    try:
        opened = scene_from_colmap(folder, written)
    except InputError:
        assert not written.exists(), "left a scene behind"
        raise
    for view in opened.references:
        _sample(opened.sample(view, num_sources=2, depth_num=4))


def _weights(folder: Path) -> None:
    for path in _only(folder, "*"):
        network = load_pretrained(path)
        assert network.enlarge >= 1


def _recipe(folder: Path) -> None:
    asdict(read_recipe(folder / "mine.toml"))


def _notebook(folder: Path) -> None:
    book = grading.read_notebook(folder / "week 1.ipynb")
    names = grading.asked_in(book)
    assert len(names) == len(set(names)), "an exercise counts twice"
    assert all(isinstance(cell, str) for cell in grading.code_cells(book))


# --- commands ----------------------------------------------------------------------------------------


def _silently(action: Callable[[], object]) -> str:
    printed, said = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        action()
    return said.getvalue()


def command(*words: object) -> None:
    """Run a command in this process; its refusal becomes an InputError again."""
    codes: list[int] = []
    said = _silently(lambda: codes.append(_code([str(word) for word in words])))
    last = said.splitlines()[-1] if said else ""
    if codes == [None]:
        raise InputError(f"in put: {last}")
    if codes == [2]:
        assert last.startswith("mvsnet-edu: "), f"said {last!r}"
        strays = [path for path in Path(".").rglob("*.tmp")]
        assert not strays, f"left {strays}"
        raise InputError(last)
    assert codes == [0], f"ended with {codes}"


def _code(words: list[str]) -> int | None:
    """Of main; None where the parser of the words ends it, with a line about the option."""
    try:
        return main(words)
    except SystemExit as end:
        assert end.code == 2
        return None


def _depth(folder: Path) -> None:
    command("depth", folder, "out", "--device", "cpu", "--enlarge", 1, "--sources", 2)


def _fuse(folder: Path) -> None:
    made = folder / os.fsdecode(b"out \xff")  # a name that is no text
    (folder / "made").rename(made)
    command("fuse", folder, made, "--min-views", 2)
    assert np.isfinite(read_ply(made / "fused.ply").points).all()


ANYTHING = ("--min-probability", 0, "--min-views", 1, "--max-relative-depth", 1)


def _reconstruct(folder: Path) -> None:
    small = ("--size", 96, "--planes", 16, "--device", "cpu", *ANYTHING)
    try:
        command("reconstruct", folder / "photos", "out", "--masks", folder / "masks", *small)
    except InputError as error:
        alone = "fit together" in str(error) or "whose depth" in str(error)  # what is said of all names none
        raise InputError(f"in put: {error}" if alone else str(error)) from None
    assert np.isfinite(read_ply(Path("out") / "fused.ply").points).all()


def _make_data(words: str) -> Callable[[Path], None]:
    """With an option whose value stands in a file. The photographs are black, as drawing them takes long."""

    def black(world: object, K: object, E: object, size: tuple[int, int], **how: object) -> torch.Tensor:
        return torch.zeros(3, size[1], size[0])

    def read(folder: Path) -> None:
        with mock.patch.object(synthetic, "render", black):
            _options("make-data", "out", "--layout", "courtyard", *words.split())(folder)

    return read


def _evaluate(folder: Path) -> None:
    for name in ("ascii", "binary_big_endian"):
        command("evaluate", folder / f"{name}.ply", folder / "plain.ply")


def _evaluate_dtu(folder: Path) -> None:
    cloud = folder / "plain.ply"
    command("evaluate", cloud, cloud, "--dtu", folder / "mask.mat", folder / "plane.mat")


def _colmap_command(folder: Path) -> None:
    command("colmap", folder, "out")


def _train(folder: Path) -> None:
    command("train", folder / "mine.toml", "--out", folder / "run", "--device", "cpu")


def _grade(folder: Path) -> None:
    command("exercises", "grade", folder / "week 1.ipynb", "--json", "out")


def _small_notebook() -> Folder:
    book = assignment.assignment([statement("count-planes")])
    return {"week 1.ipynb": json_of(book)}


def _recipe_command(folder: Path) -> None:
    command("train", folder / "mine.toml", "--out", "out", "--device", "cpu")


def _options(*before: object) -> Callable[[Path], None]:
    """A command with an option whose value is what stands in a file."""

    def read(folder: Path) -> None:
        path = folder / "value"  # which may be gone
        value = path.read_text(errors="replace").replace("\0", "")[:200] if path.exists() else ""
        try:
            command(*(folder / word if "/" in str(word) else word for word in before), value)
        except InputError as error:
            raise InputError(f"in put: {error}") from None

    return read


def _with(value: bytes, files: Callable[[], Folder]) -> Callable[[], Folder]:
    return lambda: {"value": value, **files()}


def _at_a(files: Callable[[], Folder]) -> Callable[[], Folder]:
    return lambda: {f"a/{name}": content for name, content in files().items()}


READERS = [
    Reader("cam.txt", lambda: {"00000000_cam.txt": cam(3)}, _cam),
    Reader("cam.txt, 29 words", lambda: {"00000000_cam.txt": cam(3, "425.0 2.5")}, _cam),
    Reader("pair.txt", lambda: {"pair.txt": PAIR}, _pair),
    Reader("PFM", lambda: {"a.pfm": pfm()}, lambda folder: read_pfm(folder / "a.pfm")),
    Reader("PFM, colour", lambda: {"a.pfm": pfm(kind="PF")}, lambda folder: read_pfm(folder / "a.pfm")),
    *(
        Reader(f"image {name}", lambda name=name, make=make: {name: make()}, _images)
        for name, make in PICTURES.items()
    ),
    *(
        Reader(f"photo {name}", lambda name=name, make=make: {name: make()}, _photos)
        for name, make in PICTURES.items()
    ),
    *(
        Reader(f"PLY, {name[:-4]}", lambda name=name: {name: clouds()[name]}, _ply)
        for name in ("ascii.ply", "binary_little_endian.ply", "binary_big_endian.ply")
    ),
    Reader("MATLAB, DTU's mask", mat, _mat),
    Reader("scene folder", scene, _scene),
    Reader("scene folders", scene, _dataset(lambda folder: SceneFolders(folder, 3, 8)), "depths"),
    Reader("DTU", dtu, _dataset(lambda folder: DTU(folder, "val", 2, 8, scans=[3]))),
    Reader("BlendedMVS", blended, _dataset(lambda folder: BlendedMVS(folder, "val", 2, 8))),
    Reader("COLMAP, text", colmap_text, _colmap),
    Reader("COLMAP, binary", colmap_binary, _colmap),
    Reader("weights, ours", weights, _weights),
    Reader("weights, foreign", foreign_weights, _weights),
    Reader("recipe", recipe, _recipe),
    Reader("notebook", notebook, _notebook),
    Reader("command depth", lambda: scene(False), _depth, costly=True),
    Reader("command fuse", estimates, _fuse, costly=True),
    Reader("command evaluate", clouds, _evaluate),
    Reader("command evaluate --dtu", lambda: mat() | clouds(), _evaluate_dtu, "ply"),
    Reader("command colmap", colmap_binary, _colmap_command),
    Reader("command train, run folder", run_folder, _train, "toml", costly=True),
    Reader("command train, recipe", recipe, _recipe_command, costly=True),
    Reader("command grade", _small_notebook, _grade, costly=True),
    Reader("command reconstruct", photos, _reconstruct, costly=True),
    *(
        Reader(f"option make-data {words.split()[at]}", _with(value, dict), _make_data(words))
        for at, words, value in [
            (-1, "--views 2 --size 32 32 --seed", b"3"),
            (-1, "--size 32 32 --views", b"2"),
            (-1, "--views 2 --size 32 32 --planes", b"8"),
            (-2, "--views 2 --size 32", b"32"),
        ]
    ),
    *(
        Reader(
            f"option {words[0]} {option}",
            _with(value, _at_a(files)),
            _options(*words, option),
            "^a/",
            costly=True,
        )
        for words, files, options, value in [
            (
                ("depth", "a/", "out", "--device", "cpu"),
                lambda: scene(False),
                ("--planes", "--sources"),
                b"2",
            ),
            (
                ("depth", "a/", "out", "--device", "cpu"),
                lambda: scene(False),
                ("--memory", "--enlarge"),
                b"1",
            ),
            (("depth", "a/", "out", "--device", "cpu"), lambda: scene(False), ("--subsets",), b"halves"),
            (("fuse", "a/", "a/made"), estimates, ("--min-views", "--max-reprojection"), b"2"),
            (("fuse", "a/", "a/made"), estimates, ("--min-probability", "--max-relative-depth"), b"0.5"),
            (("evaluate", "a/ascii.ply", "a/plain.ply"), clouds, ("--threshold", "--max-distance"), b"0.5"),
            (("evaluate", "a/ascii.ply", "a/plain.ply"), clouds, ("--thin",), b"0.25"),
            (("colmap", "a/", "out"), colmap_text, ("--planes", "--sources"), b"8"),
            (("exercises", "export", "out"), dict, ("--names",), b"count-planes"),
        ]
        for option in options
    ),
]
BY_NAME = {reader.name: reader for reader in READERS}
