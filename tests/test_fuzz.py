"""A few of the damaged files that ``make fuzz`` tries by the thousands, and by name what it has found."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hostile import SPRUNG, Reader, Trap, case, judge, png_chunk, put
from PIL import Image
from readers import (
    BY_NAME,
    READERS,
    RECIPE,
    VIEWS,
    W,
    cam,
    colmap_binary,
    colmap_text,
    estimates,
    exif,
    foreign_weights,
    mat,
    pfm,
    picture,
    ply,
    scene,
    weights,
)
from safetensors.torch import save_file

from mvsnet_edu import InputError
from mvsnet_edu.batches import collate
from mvsnet_edu.checkpoints import read_tensors
from mvsnet_edu.cli import main
from mvsnet_edu.data import Scene, write_scene
from mvsnet_edu.data.colmap import scene_from_colmap
from mvsnet_edu.data.formats import atomic_write, image_size, read_cam, read_image, read_pair, read_pfm
from mvsnet_edu.data.photos import _focal_share, find_photos, read_photo
from mvsnet_edu.data.ply import read_ply
from mvsnet_edu.evaluation import read_observation_mask
from mvsnet_edu.exercises.grading import Grades, Mark, asked_in, read_notebook
from mvsnet_edu.models import load_pretrained
from mvsnet_edu.recipe import read_recipe
from mvsnet_edu.reconstruction import _prepared
from mvsnet_edu.run_folder import RunFolder

TRILLION = 10**12


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / SPRUNG).exists(), "code in a file was run"


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files_are_read_or_refused_in_a_sentence(reader: Reader):
    files = reader.seed()
    assert judge(reader, files).kind == "result"
    verdicts = [judge(reader, case(reader, files, f"test {n}")) for n in range(1 if reader.costly else 6)]
    assert not [verdict for verdict in verdicts if verdict.kind == "defect"]


def refused(read: Callable, *arguments) -> str:
    """What is said, in one line."""
    with pytest.raises(InputError) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused_command(capsys, *words) -> str:
    assert main([str(word) for word in words]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("mvsnet-edu: ")
    return last


def written(path: str, content: bytes) -> Path:
    put(Path("."), {path: content})
    return Path(path)


# --- more memory than there is -----------------------------------------------------------------------


def in_little_memory(action: Callable[[], object], gigabytes: float = 1.0) -> None:
    """Do something in a child that may take so much more than it has."""
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        return
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + int(gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        action()
        os._exit(0)
    except BaseException as error:
        print(repr(error)[:2000], file=sys.__stderr__, flush=True)
        os._exit(1)


def png_of(width: int, height: int, rows: int) -> bytes:
    """A black one-bit image; the pixels that are there take next to nothing."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    data = zlib.compress(bytes(rows * (1 + width // 8)))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def with_holes(path: str, size: int, start: bytes = b"") -> Path:
    """A file that takes no room on the disk."""
    with open(written(path, start), "r+b") as file:
        file.truncate(size)
    return Path(path)


def test_a_header_that_promises_too_much_is_refused_before_anything_is_allocated():
    def read_them() -> None:
        large = written("large.png", png_of(10**6, 10**6, 1))
        assert "exceeds limit" in refused(image_size, large) and "exceeds limit" in refused(read_image, large)
        bomb = written("bomb.png", png_of(40_000, 5_000, 5_000))
        assert "exceeds limit" in refused(read_photo, bomb, 100)
        hollow = written("hollow.png", png_of(32, 1_000_000, 24))
        assert "more pixels than its bytes can hold" in refused(read_image, hollow)
        assert read_image(written("black.png", png_of(4_000, 1_000, 1_000))).shape == (3, 1_000, 4_000)
        start = b"Pf\n1000000 1000000\n-1\n"
        map_ = with_holes("a.pfm", len(start) + 4 * TRILLION, start)
        assert "announces 1000000 x 1000000 pixels" in refused(read_pfm, map_)
        for name, read in (("cam.txt", read_cam), ("pair.txt", read_pair)):
            assert "but such files have" in refused(read, with_holes(name, TRILLION))
        assert "but such files have" in refused(read_notebook, with_holes("a.ipynb", TRILLION))
        assert "no TOML file" in refused(read_recipe, with_holes("a.toml", TRILLION))

    in_little_memory(read_them)


def test_a_ply_header_that_promises_too_much():
    wide = b"".join(b"property double p%d\n" % k for k in range(2000))
    whole = ply("binary_little_endian", faces=False)

    def read_them() -> None:
        rows = whole.replace(b"vertex 30", b"vertex 1000000").replace(b"property", wide + b"property", 1)
        assert "announces 1000000 elements" in refused(read_ply, written("wide.ply", rows + bytes(10**6)))
        start, end = whole.replace(b"vertex 30", b"vertex 1000000000000").split(b"end_header\n")
        macintosh = start.replace(b"\n", b"\r") + b"end_header\r" + end
        assert "announces 1000000000000 elements" in refused(read_ply, written("cr.ply", macintosh))
        long = start.replace(b"element", b"comment" + bytes(70_000).replace(b"\0", b"x") + b"\nelement", 1)
        assert "early end-of-file" in refused(read_ply, written("long.ply", long + b"end_header\n" + end))

    in_little_memory(read_them)


def test_weights_that_ask_for_more_than_their_file_holds():
    header = {"class": "RMVSNet", "config": json.dumps({"widths": [10**5, 10**5, 10**5]})}
    save_file({"x": torch.zeros(1)}, "wide.safetensors", metadata=header)
    content = torch.load(io.BytesIO(foreign_weights()["model.ckpt"]), weights_only=True)["model"]
    name = "cost_regularization.prob.weight"
    torch.save({"model": content | {name: torch.zeros(1).expand(10**6, 10**6)}}, "repeated.ckpt")
    with zipfile.ZipFile("packed.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", bytes(1 << 24))

    def read_them() -> None:
        assert "does not fit RMVSNet" in refused(load_pretrained, "wide.safetensors")
        for file in ("repeated.ckpt", "packed.pt"):
            assert "nor tensors of torch.save" in refused(load_pretrained, file)
        with pytest.raises(ValueError) as caught:
            read_tensors("packed.pt")
        assert "unpacks to more than its size" in str(caught.value.__cause__)

    in_little_memory(read_them)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("size = [32, 32]", "size = [1000000, 1000000]", "stage[0].size must be at most 10000"),
        ("depth_num = 8", "depth_num = 1000000000", "stage[0].depth_num must be at most 10000"),
        ("views = [2, 3]", "views = [1000000000]", "stage[0].views must be at most 1000"),
        ("slots = 2", "slots = 1000000000000", "data.slots must be at most 1000000"),
        ("workers = 0", "workers = 1000000", "data.workers must be at most 1000"),
        ("samples = 1", "samples = 1000000000", "validation.samples must be at most 1000000"),
        ("rate = 1e-3", f"rate = {'9' * 400}", "stage[0].rate must be smaller, not 9999"),
        ("steps = 1", f"steps = {'9' * 400}", "stage[0].steps must be smaller, not 9999"),
        ("seed = 3", "seed = -1", "seed must be at least 0"),
        ("seed = 3", 'out = "a\\u0000b"', "out must be a text without a zero byte"),
        ("seed = 3", f"seed = {'[' * 10_000}", "no TOML file"),
    ],
)
def test_a_recipe_that_nobody_can_follow(old, new, says):
    path = written("mine.toml", RECIPE.decode().replace(old, new, 1).encode())
    assert says in refused(read_recipe, path) and len(refused(read_recipe, path)) < 400


def test_a_key_of_ten_thousand_parts_does_not_keep_its_reader_busy():
    assert "no TOML file" in refused(read_recipe, written("mine.toml", b"a." * 10_000 + RECIPE))


def test_a_recipe_may_take_its_time_and_begin_with_a_byte_order_mark():
    assert read_recipe(written("a.toml", b"\xef\xbb\xbf" + RECIPE)).steps == 1
    assert read_recipe(written("a.toml", RECIPE.replace(b"steps = 1", b"steps = 1000000000"))).steps == 10**9


@pytest.mark.parametrize("options", [["--size", 10**6, 10**6], ["--enlarge", 10**6], ["--size", 10**15, 8]])
def test_sizes_beyond_the_memory_are_refused_before_an_image_is_made(options, capsys):
    put(Path("a"), scene(depth=False))
    words = ("depth", "a", "out", "--device", "cpu", *options)
    in_little_memory(lambda: refused_command(capsys, *words))
    assert "needs more memory than there is" in refused_command(capsys, *words) and not Path("out").exists()


# --- what is no file of the kind ---------------------------------------------------------------------


def test_a_pipe_does_not_make_its_reader_wait():
    os.mkfifo("pipe.jpg")
    readers = (read_cam, read_pair, read_pfm, read_image, image_size, read_ply, read_notebook)
    for read in (*readers, lambda path: read_photo(path, 8), lambda path: read_observation_mask(path, path)):
        assert "pipe.jpg cannot be read: it is no file" in refused(read, Path("pipe.jpg"))
    for read in (load_pretrained, read_recipe):
        assert "pipe.jpg" in refused(read, Path("pipe.jpg"))
    assert "has no photos" in refused(find_photos, ".")
    put(Path("dense"), colmap_binary())
    Path("dense/sparse/cameras.bin").unlink()
    os.mkfifo("dense/sparse/cameras.bin")
    assert "cameras.bin cannot be read: it is no file" in refused(scene_from_colmap, "dense", "scene")


def test_only_formats_of_pictures_are_opened():
    """Pillow would hand this one to Ghostscript."""
    path = written(
        "00000000.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    assert "00000000.png is not an image" in refused(read_image, path)


def test_a_special_file_or_no_name_is_nothing_to_write_to(capsys):
    os.mkfifo("pipe")
    for path in ("pipe", ".", "", "a\0b"):
        with pytest.raises(InputError, match="cannot be written"), atomic_write(path):
            pass
    Path("empty").mkdir()
    os.chdir("empty")
    assert "no name for a new folder" in refused(write_scene, ".", {0: torch.zeros(3, 8, 8)}, {0: None}, {})


@pytest.mark.parametrize("name", ["state.pt", "log.jsonl", "lock"])
def test_a_run_folder_with_a_link_that_leads_out_is_refused(name):
    mine = written("mine.txt", b"precious")
    Path("run").mkdir()
    (Path("run") / name).symlink_to(mine.resolve())
    assert name in refused(RunFolder, Path("run")) and mine.read_bytes() == b"precious"


def test_what_is_written_takes_the_place_of_a_link_and_does_not_follow_it(capsys):
    mine = written("mine.txt", b"precious")
    Path("week1.ipynb").symlink_to(mine)
    Path("dangling.ipynb").symlink_to("nowhere.txt")
    for name in ("week1.ipynb", "dangling.ipynb"):
        assert main(["exercises", "export", name, "--names", "less-k"]) == 0
        assert not Path(name).is_symlink() and read_notebook(name)["cells"]
    assert mine.read_bytes() == b"precious" and not Path("nowhere.txt").exists()


@pytest.mark.parametrize("name", [b"../outside.png", b"/outside.png", b"../../../../etc/passwd"])
def test_a_colmap_model_whose_photos_lie_elsewhere_writes_nothing_there(name):
    files = {key: value.replace(b"a photo 1.png", name) for key, value in colmap_text().items()}
    put(Path("a/dense"), files | {"outside.png": picture()})
    with contextlib.suppress(InputError):  # a photo that is there may be read
        assert len(scene_from_colmap("a/dense", "b/scene").views) == 3
    assert {path.name for path in Path(".").iterdir()} <= {"a", "b"}
    assert {path.name for path in Path("a").rglob("*.*")} <= {Path(name).name for name in files} | {
        "outside.png"
    }


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'[{"file": "a"}]', b'[{"size": 3}]'])
def test_damaged_notes_on_prepared_photos_are_named(content):
    written("out/photos/photos.json", content)
    if content == b"{}":
        assert _prepared(Path("out")) == []  # and so too few
    else:
        assert "photos.json is damaged: remove it" in refused(_prepared, Path("out"))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".npz", ".npy", ".safetensors"])
def test_no_pickle_is_ever_loaded(suffix, capsys):
    plain, path = io.BytesIO(), Path(f"weights{suffix}")
    np.save(plain, np.array([Trap()], object), allow_pickle=True)
    torch.save({"model": Trap()}, "new.pt")
    torch.save({"model": Trap()}, "old.pt", _use_new_zipfile_serialization=False)
    with tarfile.open("tar.pt", "w") as file:
        file.add("old.pt", "storages")
        file.add("old.pt", "pickle")
    contents = [Path(name).read_bytes() for name in ("new.pt", "old.pt", "tar.pt")]
    put(Path("scene"), scene(depth=False))
    Path("run").mkdir()
    for content in (*contents, plain.getvalue()):
        path.write_bytes(content)
        assert "nor tensors of torch.save" in refused(load_pretrained, path)
        (Path("run") / "state.pt").write_bytes(content)
        assert "state.pt is no checkpoint" in refused(RunFolder(Path("run")).load)
    assert str(path) in refused_command(capsys, "depth", "scene", "out", "--weights", path)


# --- numbers that break what trusts them -------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"40.0 0 16.0", b"1e300 0 16.0", "too large to compute with"),
        (b"40.0 0 16.0", b"1e-60 0 1e60", "singular"),
        (b"1 0 0 -0.1", b"1 0 0 1e39", "too large to compute with"),
        (b"1.0 0.25 8 2.75", b"1e39 0.25 8", "too large to compute with"),
        (b"1.0 0.25 8 2.75", b"1.0 1e300", "too large to compute with"),
    ],
)
def test_a_camera_that_single_precision_cannot_hold(old, new, says):
    assert cam(1).count(old) == 1
    assert says in refused(read_cam, written("00000000_cam.txt", cam(1).replace(old, new)))


def test_a_cloud_that_single_precision_cannot_hold():
    text = ply("ascii").replace(b"property float x", b"property double x").replace(b"\n0.0 ", b"\n1e300 ", 1)
    assert "coordinates are not finite" in refused(read_ply, written("a.ply", text))


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("cameras", b"PINHOLE 32 24", b"PINHOLE 0 24", "camera without a size"),
        ("cameras", b"PINHOLE 32 24", b"PINHOLE -32 -24", "camera without a size"),
        ("cameras", b"PINHOLE 32 24", b"PINHOLE 1000000 1000000", "camera without a size"),
        ("cameras", b"PINHOLE 32 24", b"PINHOLE 1" + b"0" * 400 + b" 24", "camera without a size"),
        ("cameras", b"PINHOLE 32 24", b"PINHOLE 3200 2400", "is 32 x 24 pixels, but its camera"),
        ("cameras", b"40.0 38.0", b"0 38.0", "focal length"),
        ("images", b" 1 0 0 0 ", b" 1e200 1e200 0 0 ", "0 photos with 10 sparse points"),
        ("points3D", b" 2.5 9", b" 1e300 9", "depth range"),
    ],
)
def test_a_colmap_model_with_impossible_numbers_leaves_no_scene_behind(name, old, new, says):
    files = {key: value.replace(old, new) if name in key else value for key, value in colmap_text().items()}
    assert files != colmap_text()
    put(Path("dense"), files)
    assert says in refused(scene_from_colmap, "dense", "scene")
    assert not Path("scene").exists()


def test_a_count_beyond_64_bits_in_a_colmap_model():
    files = colmap_binary()
    tail = files["sparse/points3D.bin"]
    put(Path("dense"), files | {"sparse/points3D.bin": tail[:-16] + b"\xff" * 8 + tail[-8:]})
    assert "points3D.bin is broken or cut off" in refused(scene_from_colmap, "dense", "scene")


@pytest.mark.parametrize("planes", [1, 10**9])
def test_colmap_with_planes_that_make_no_sweep(planes, capsys):
    put(Path("dense"), colmap_text())
    assert "from 2 to" in refused_command(capsys, "colmap", "dense", "scene", "--planes", planes)
    assert not Path("scene").exists()


@pytest.mark.parametrize(("old", "new"), [(b"10.0 0 4.0", b"1e-30 0 4.0"), (b"10.0 0 4.0", b"-10.0 0 4.0")])
def test_estimates_whose_camera_is_not_of_the_scene(old, new, capsys):
    files = estimates()
    name = "made/cams/00000000_cam.txt"
    assert files[name].count(old) == 1
    put(Path("a"), files | {name: files[name].replace(old, new)})
    assert "00000000" in refused_command(capsys, "fuse", "a", "a/made", "--min-views", 2)


def test_a_damaged_mask_of_dtu_does_not_end_the_process():
    files = mat()
    for start in range(132, len(files["plane.mat"]), 7):
        broken = bytearray(files["plane.mat"])
        broken[start] ^= 0xF0
        put(Path("."), files | {"plane.mat": bytes(broken)})
        try:
            read_observation_mask("mask.mat", "plane.mat")
        except InputError as error:
            assert "plane.mat" in str(error)


def test_images_of_two_sizes_share_no_batch():
    samples = []
    for size in ((32, 24), (40, 24)):
        buffer = io.BytesIO()
        Image.new("RGB", size).save(buffer, "PNG")
        pictures = {f"images/{view:08d}.png": buffer.getvalue() for view in VIEWS}
        put(Path(str(size)), scene(depth=False) | pictures)
        samples.append(Scene.open(str(size)).sample(0, 2))
    assert "Images of 32 x 24 and 40 x 24 pixels" in refused(collate, samples, 2)


# --- checkpoints, logs, notebooks --------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("recipe"),
        lambda state: state.pop("network"),
        lambda state: state.update(step="three"),
        lambda state: state.update(sums=torch.zeros(2)),
        lambda state: state.update(rng=torch.zeros(3)),
        lambda state: state["average"].popitem(),
        lambda state: state.update(recipe="[" * 10_000),
    ],
)
def test_a_checkpoint_of_something_else_is_named(change, capsys, run_files):
    state = torch.load(io.BytesIO(run_files["run/state.pt"]), weights_only=True)
    change(state)
    put(Path("."), run_files)
    torch.save(state, "run/state.pt")
    said = refused_command(capsys, "train", "mine.toml", "--out", "run", "--device", "cpu")
    assert "run/state.pt is no checkpoint of a run of this recipe" in said


@pytest.fixture(scope="module")
def run_files(tmp_path_factory):
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("run"))
    try:
        return BY_NAME["command train, run folder"].seed()
    finally:
        os.chdir(before)


def test_lines_of_a_log_that_cannot_be_read_are_dropped():
    log = b'{"step": 1}\n\xff\xfe}\n[]}\n{"step": "x"}\n{"no": 1}\n{"step": 3}\n{"step": 2}\n{"step": '
    written("run/log.jsonl", log)
    RunFolder(Path("run")).rewind(2)
    assert Path("run/log.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_an_exercise_that_a_notebook_lists_twice_counts_once():
    assert asked_in({"cells": [], "metadata": {"mvsnet_edu": ["less-k", "a", "less-k"]}}) == ["less-k", "a"]


# --- photos ------------------------------------------------------------------------------------------


def test_a_photo_whose_notes_on_the_lens_are_damaged_is_named_or_read():
    whole = picture(suffix="jpg", exif=exif())
    start = whole.index(b"Exif")
    for at in range(start, start + 250, 3):
        path = written("a.jpg", whole[:at] + b"\xff\xff" + whole[at + 2 :])
        try:
            assert read_photo(path, 30).image.shape[0] == 3
        except InputError as error:
            assert "a.jpg" in str(error)


@pytest.mark.parametrize(("millimetres", "focal"), [(26, 26), (0, None), (1, None), (65_535, None)])
def test_notes_on_a_lens_that_there_is_not_say_nothing(millimetres, focal):
    notes = exif()
    notes.get_ifd(0x8769)[0xA405] = millimetres
    del notes.get_ifd(0x8769)[0x920A]
    photo = read_photo(written("a.jpg", picture(suffix="jpg", exif=notes)), 30)
    assert (photo.focal is None) == (focal is None)


@pytest.mark.parametrize("resolution", [1e-300, 1e300])
def test_a_lens_and_a_sensor_that_do_not_go_together_say_nothing(resolution):
    notes = {0x920A: 4.2, 0xA20E: resolution}
    assert _focal_share(SimpleNamespace(get_ifd=lambda tag: notes), (32, 24)) is None


# --- the command line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["depth", "a", "out", "--memory", "inf"],
        ["depth", "a", "out", "--memory", "1e300"],
        ["exercises", "grade", "a.ipynb", "--seconds", "inf"],
        ["exercises", "grade", "a.ipynb", "--seconds", "1e12"],
    ],
)
def test_amounts_without_end(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2 and "must be at most a billion" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["two", "2.5", "0", "-1", "", "9" * 5000, "nan", "\udcff"])
def test_a_count_that_is_none(word, capsys):
    with pytest.raises(SystemExit) as end:
        main(["colmap", "dense", "scene", "--planes=" + word])
    said = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2 and "must be a whole number from 1 on" in said and len(said) < 200


def test_a_number_that_is_none(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "a.ply", "b.ply", "--thin", "two"])
    assert "must be a number, not 'two'" in capsys.readouterr().err


def test_a_device_without_numbers(capsys):
    put(Path("a"), scene(depth=False))
    assert "--device meta cannot be used" in refused_command(capsys, "depth", "a", "out", "--device", "meta")


def test_what_a_file_is_called_does_not_steer_the_terminal(capsys):
    said = refused_command(capsys, "evaluate", "two\nlines\x1b[2J.ply", "b.ply")
    assert "two\\nlines\\x1b[2J.ply cannot be read" in said


def test_a_terminal_that_cannot_show_a_name():
    """A real process, whose output knows ASCII only; one name is Chinese, the other no text at all."""
    dense, strange = "照 片", os.fsdecode(b"a\xff")
    put(Path(dense), colmap_text())
    words = [sys.executable, "-m", "mvsnet_edu", "colmap", dense, strange]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "") and "a\\udcff: 3 views" in done.stdout


def test_marks_of_an_answer_that_no_file_can_hold():
    mark = Mark("less-k", "loss", "wrong", 0, 1, "\ud800", 0.5)
    assert json.loads(Grades("a\udcff.ipynb", (mark,)).json().encode())["marks"][0]["said"] == "\ud800"


def test_weights_that_are_fine_are_still_read():
    written("ours.safetensors", weights()["ours.safetensors"])
    written("theirs.ckpt", foreign_weights()["model.ckpt"])
    assert load_pretrained("ours.safetensors").enlarge == load_pretrained("theirs.ckpt").enlarge == 1
    assert read_pfm(written("a.pfm", pfm())).shape == (6, W // 4)
