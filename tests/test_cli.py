import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.io import savemat

from mvsnet_edu import __version__
from mvsnet_edu.checkpoints import save_network
from mvsnet_edu.cli import main
from mvsnet_edu.data.formats import Camera, write_cam, write_pfm
from mvsnet_edu.data.ply import PointCloud, read_ply, write_ply
from mvsnet_edu.data.scene import write_scene
from mvsnet_edu.data.synthetic import LAYOUTS, SHIPPED
from mvsnet_edu.models import MVSNet

COMMANDS = ("reconstruct", "colmap", "depth", "fuse", "evaluate", "make-data", "exercises")
H, W = 40, 56
K = torch.tensor([[60.0, 0, 28], [0, 60, 20], [0, 0, 1]], dtype=torch.float64)


def camera(view):
    E = torch.eye(4, dtype=torch.float64)
    E[0, 3] = -0.05 * view
    return Camera(E, K, 1.5, 0.125, 16)


@pytest.fixture
def scene(tmp_path):
    """Three photographs in a row."""
    images = {view: torch.rand(3, H, W) for view in range(3)}
    pairs = {view: [(other, 1.0) for other in range(3) if other != view] for view in range(3)}
    cameras = {view: camera(view) for view in range(3)}
    return write_scene(tmp_path / "scene", images, cameras, pairs, suffix=".png").folder


@pytest.fixture
def weights(tmp_path):
    save_network(MVSNet(), tmp_path / "untrained.safetensors")
    return tmp_path / "untrained.safetensors"


@pytest.fixture
def estimates(scene, tmp_path):
    """What a network that sees the plane z = 2 would have written."""
    for view in range(3):
        write_pfm(tmp_path / f"out/depth/{view:08d}.pfm", torch.full((H // 4, W // 4), 2.0))
        write_pfm(tmp_path / f"out/probability/{view:08d}.pfm", torch.full((H // 4, W // 4), 0.9))
        write_cam(tmp_path / f"out/cams/{view:08d}_cam.txt", camera(view).scaled(0.25, 0.25))
    return tmp_path / "out"


def run(*words):
    return main([str(word) for word in words])


def refused(capsys, *words):
    """The one sentence on stderr with which a command ends."""
    capsys.readouterr()
    assert run(*words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("mvsnet-edu: ") and err.count("\n") == 1
    return err


# --- help --------------------------------------------------------------------------------------------


def test_help_lists_the_commands_and_an_example(capsys):
    with pytest.raises(SystemExit) as end:
        run("--help")
    text = capsys.readouterr().out
    assert end.value.code == 0 and "mvsnet-edu depth DATA/still_life OUT" in text
    assert all(re.search(rf"^ +{command}\s", text, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example_that_parses(command, capsys):
    from mvsnet_edu.cli import _parser

    with pytest.raises(SystemExit) as end:
        run(command, "--help")
    example = re.search(r"example: mvsnet-edu (.*)", capsys.readouterr().out, re.DOTALL)[1].split()
    assert end.value.code == 0 and example[0] == command and _parser().parse_args(example)


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        run("--version")
    assert end.value.code == 0 and capsys.readouterr().out == f"mvsnet-edu {__version__}\n"


def test_runs_as_a_module():
    words = [sys.executable, "-m", "mvsnet_edu", "evaluate", "a.ply", "b.ply"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and re.fullmatch("mvsnet-edu: a.ply .*\n", done.stderr)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["dephts"],
        ["depth", "scene"],
        ["depth", "scene", "out", "--planes", "0"],
        ["depth", "scene", "out", "--size", "640"],
        ["fuse", "scene", "out", "--min-probability", "-1"],
        ["evaluate", "a.ply", "b.ply", "--threshold", "nan"],
    ],
)
def test_words_that_make_no_command_end_with_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        run(*words)
    assert end.value.code == 2 and "error:" in capsys.readouterr().err


# --- exercises ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["export", "grade"])
def test_export_and_grade_explain_themselves(deed, capsys):
    with pytest.raises(SystemExit) as end:
        run("exercises", deed, "--help")
    assert end.value.code == 0 and f"example: mvsnet-edu exercises {deed} " in capsys.readouterr().out


def test_an_assignment_goes_out_and_its_marks_come_back(tmp_path, capsys):
    path, marks = tmp_path / "week1.ipynb", tmp_path / "marks.json"
    assert run("exercises", "export", path, "--names", "count-planes", "camera-center") == 0
    stub = "def count_planes(depth_min, depth_max, interval):\n    ..."
    solution = stub.replace("...", "return round((depth_max - depth_min) / interval) + 1")
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        cell["source"] = solution if "".join(cell["source"]) == stub else cell["source"]
    path.write_text(json.dumps(notebook))
    assert run("exercises", "grade", path, "--json", marks) == 0
    assert "week1.ipynb: 1 of 2 points" in capsys.readouterr().out
    assert [mark["verdict"] for mark in json.loads(marks.read_text())["marks"]] == ["right", "missing"]


def test_bad_assignments_are_one_sentence(tmp_path, capsys):
    (tmp_path / "cut.ipynb").write_text('{"cells": [')
    assert "cut.ipynb is not a whole notebook" in refused(
        capsys, "exercises", "grade", tmp_path / "cut.ipynb"
    )
    said = refused(capsys, "exercises", "export", tmp_path / "a.ipynb", "--chapters", "lost")
    assert "no chapter 'lost'" in said and not (tmp_path / "a.ipynb").exists()


# --- depth -------------------------------------------------------------------------------------------


def test_depth_writes_maps_at_a_quarter_of_the_size_and_goes_on(scene, weights, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("depth", scene, out, "--weights", weights, "--device", "cpu") == 0
    assert "3 depth maps made" in capsys.readouterr().out
    assert len(list((out / "depth").glob("*.pfm"))) == len(list((out / "probability").glob("*.pfm"))) == 3
    (out / "cams/00000001_cam.txt").unlink()
    assert run("depth", scene, out, "--weights", weights, "--device", "cpu") == 0
    assert "1 depth maps made, 2 were there" in capsys.readouterr().out


def test_depth_takes_its_options(scene, weights, tmp_path):
    out = tmp_path / "out"
    options = ["--weights", weights, "--device", "cpu", "--planes", 8, "--sources", 1, "--size", 48, 32]
    assert run("depth", scene, out, *options) == 0
    assert (out / "depth/00000000.pfm").read_bytes().startswith(b"Pf\n12 8\n")
    assert (out / "cams/00000000_cam.txt").read_text().split()[-2] == "8"
    settings = json.loads((out / "settings.json").read_text())
    assert settings["sources"] == 1 and settings["inverse"] is False
    assert run("depth", scene, out, *options, "--inverse", "--memory", 0.1) == 0
    assert json.loads((out / "settings.json").read_text()) == settings | {"inverse": True}


def test_depth_says_when_the_memory_that_it_may_use_is_too_little(scene, weights, tmp_path, capsys):
    words = ("depth", scene, tmp_path / "out", "--weights", weights, "--memory", 0.0001)
    assert "14 x 10 pixels from 16 planes needs more memory" in refused(capsys, *words)


@pytest.mark.parametrize(
    "file, damage, message",
    [
        ("cams/00000001_cam.txt", None, "cams/00000001_cam.txt is missing"),
        ("cams/00000001_cam.txt", b"extrinsic\n1 0 0", "cams/00000001_cam.txt has 4 words"),
        ("pair.txt", b"1\n0\n1 7 2.5\n", "pair.txt names view 7"),
        ("images/00000002.png", b"no picture", "images/00000002.png is not an image"),
    ],
)
def test_depth_refuses_a_broken_scene(file, damage, message, scene, weights, tmp_path, capsys):
    path = scene / file
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if damage is not None:
        path.write_bytes(damage)
    assert message in refused(capsys, "depth", scene, tmp_path / "out", "--weights", weights)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--weights", "nothing"], "nothing: no such weights file"),
        (["--device", "abacus"], "--device abacus cannot be used"),
        (["--planes", "1"], "from 2 to"),
        (["--size", "3", "3"], "too small"),
    ],
)
def test_depth_refuses_settings_that_cannot_work(options, message, scene, weights, tmp_path, capsys):
    assert message in refused(capsys, "depth", scene, tmp_path / "out", "--weights", weights, *options)
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_folder_should_be_is_named(scene, weights, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert "out" in refused(capsys, "depth", scene, tmp_path / "out", "--weights", weights)
    assert (tmp_path / "out").read_text() == "mine"


def test_an_interruption_is_one_short_line(scene, weights, tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(MVSNet, "sweep", interrupt)
    assert run("depth", scene, tmp_path / "out", "--weights", weights, "--device", "cpu") == 130
    assert capsys.readouterr().err.endswith("mvsnet-edu: Interrupted.\n")


# --- fuse --------------------------------------------------------------------------------------------


def test_fuse_writes_a_cloud_and_a_page(scene, estimates, capsys):
    assert run("fuse", scene, estimates) == 0
    cloud = read_ply(estimates / "fused.ply")
    assert len(cloud) >= H // 4 * W // 4 and np.allclose(cloud.points[:, 2], 2)
    assert cloud.colors.std() > 10 and np.allclose(cloud.normals, [0, 0, -1])
    page = (estimates / "fused.html").read_text()
    assert "<script" in page and not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert f"{len(cloud)} points" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--min-probability", 0.95], ["--min-views", 4]])
def test_fuse_without_a_point_left_writes_nothing(options, scene, estimates, capsys):
    assert "has no point that passes" in refused(capsys, "fuse", scene, estimates, *options)
    assert not list(estimates.glob("fused.*"))


@pytest.mark.parametrize(
    "option, strict, loose", [("--max-reprojection", 0.007, 0.008), ("--max-relative-depth", 0.002, 0.003)]
)
def test_fuse_takes_its_thresholds(option, strict, loose, scene, estimates, capsys):
    wide = ["--max-reprojection", 99, "--max-relative-depth", 99]
    for view, depth in enumerate([2.0, 2.005, 1.995]):
        write_pfm(estimates / f"depth/{view:08d}.pfm", torch.full((H // 4, W // 4), depth))
    # View 0 is off by 0.25 % of the depth from both, and from view 2 by 60 px x 0.1 x 0.00125 = 0.0075 px.
    assert run("fuse", scene, estimates, *wide, option, loose) == 0
    assert "no point" in refused(capsys, "fuse", scene, estimates, *wide, option, loose, "--dynamic")
    assert run("fuse", scene, estimates, *wide, option, 2 * loose, "--dynamic") == 0
    assert "no point" in refused(capsys, "fuse", scene, estimates, *wide, option, strict)


@pytest.mark.parametrize("folder", ["depth", "probability", "cams"])
def test_fuse_names_what_is_missing(folder, scene, estimates, capsys):
    next((estimates / folder).glob("00000001*")).unlink()
    assert f"{folder}/00000001" in refused(capsys, "fuse", scene, estimates)
    assert not list(estimates.glob("fused.*"))


def test_fuse_names_a_truncated_map(scene, estimates, capsys):
    path = estimates / "depth/00000002.pfm"
    path.write_bytes(path.read_bytes()[:-4])
    assert "depth/00000002.pfm has" in refused(capsys, "fuse", scene, estimates)


# --- evaluate ----------------------------------------------------------------------------------------


@pytest.fixture
def clouds(tmp_path):
    truth = np.stack(np.meshgrid(np.arange(5.0), np.arange(4.0), [0.0]), axis=-1).reshape(-1, 3)
    write_ply(tmp_path / "truth.ply", PointCloud(truth))
    write_ply(tmp_path / "cloud.ply", PointCloud(np.concatenate([truth + [0, 0, 0.25], [[0, 0, 50]]])))
    return tmp_path / "cloud.ply", tmp_path / "truth.ply"


def printed(capsys):
    return {name: float(value) for name, value in map(str.split, capsys.readouterr().out.splitlines())}


def test_evaluate_prints_the_numbers(clouds, capsys):
    assert run("evaluate", *clouds, "--threshold", 0.3, "--max-distance", 20) == 0
    expected = {"threshold": 0.3, "accuracy": 0.25, "completeness": 0.25, "overall": 0.25}
    expected |= {"precision": 20 / 21, "recall": 1, "f_score": 40 / 41}
    assert printed(capsys) == pytest.approx(expected, rel=1e-5)


def test_evaluate_has_a_threshold_of_its_own(clouds, capsys):
    assert run("evaluate", *clouds) == 0
    assert printed(capsys)["threshold"] == pytest.approx(0.005 * 5)  # the truth is 4 x 3


def test_evaluate_thins_both_clouds(tmp_path, capsys):
    truth = np.stack(np.meshgrid(np.arange(5.0), np.arange(4.0), [0.0]), axis=-1).reshape(-1, 3)
    write_ply(tmp_path / "truth.ply", PointCloud(truth))
    dense = np.concatenate([truth, np.repeat(truth[:1], 99, axis=0) + [0, 0, 0.125]])
    write_ply(tmp_path / "dense.ply", PointCloud(dense))
    words = ("evaluate", tmp_path / "dense.ply", tmp_path / "truth.ply", "--threshold", 0.1)
    assert run(*words) == 0 and printed(capsys)["precision"] == pytest.approx(20 / 119, rel=1e-5)
    assert run(*words, "--thin", 0.01) == 0 and printed(capsys)["precision"] == pytest.approx(
        20 / 21, rel=1e-5
    )


@pytest.fixture
def scan(tmp_path):
    """What DTU brings for a scan: space was observed up to x = 2.5, and the table is y = 0.5."""
    voxels = np.ones((3, 9, 9), np.uint8)
    box = np.array([[0.0, 0, -4], [3, 9, 5]])
    savemat(tmp_path / "ObsMask1_10.mat", {"ObsMask": voxels, "BB": box, "Res": 1.0})
    savemat(tmp_path / "Plane1.mat", {"P": np.array([[0.0], [1], [0], [-0.5]])})
    return tmp_path / "ObsMask1_10.mat", tmp_path / "Plane1.mat"


def test_evaluate_knows_the_rules_of_dtu(clouds, scan, tmp_path, capsys):
    """The estimate lies 0.25 above the truth, and lacks the row that is on the table."""
    cloud = read_ply(clouds[0]).points
    write_ply(tmp_path / "part.ply", PointCloud(cloud[(cloud[:, 1] > 0.5) & (cloud[:, 0] < 4)]))
    words = ("evaluate", tmp_path / "part.ply", clouds[1])
    assert run(*words, "--dtu") == 0
    assert printed(capsys)["recall"] == pytest.approx(12 / 20)
    assert run(*words, "--dtu", *scan, "--threshold", 0.5) == 0
    numbers = printed(capsys)
    assert numbers["threshold"] == 0.5 and numbers["accuracy"] == 0.25
    assert numbers["recall"] == pytest.approx(12 / 15)  # the row on the table does not count any more


def test_evaluate_says_what_dtu_needs(clouds, scan, tmp_path, capsys):
    far = tmp_path / "far.ply"
    write_ply(far, PointCloud(np.full((3, 3), 1000.0)))
    assert "two files" in refused(capsys, "evaluate", *clouds, "--dtu", scan[0])
    assert "its own rules" in refused(capsys, "evaluate", *clouds, "--dtu", "--thin", 1)
    assert "Plane1.mat has no array ObsMask" in refused(capsys, "evaluate", *clouds, "--dtu", *scan[::-1])
    message = refused(capsys, "evaluate", far, clouds[1], "--dtu", *scan)
    assert "far.ply" in message and "no points where the mask looks" in message


def test_evaluate_refuses_what_is_no_cloud(clouds, tmp_path, capsys):
    write_ply(tmp_path / "empty.ply", PointCloud(np.zeros((0, 3))))
    write_ply(tmp_path / "point.ply", PointCloud(np.zeros((1, 3))))
    (tmp_path / "text.ply").write_text("no cloud")
    assert "empty.ply has no points" in refused(capsys, "evaluate", tmp_path / "empty.ply", clouds[1])
    assert "give --threshold" in refused(capsys, "evaluate", clouds[0], tmp_path / "point.ply")
    assert "text.ply cannot be read" in refused(capsys, "evaluate", clouds[0], tmp_path / "text.ply")


# --- make-data ---------------------------------------------------------------------------------------


def test_make_data_draws_the_layout_that_is_asked_for(tmp_path):
    options = ["--views", 2, "--size", 32, 36, "--seed", 5, "--planes", 8]
    assert run("make-data", tmp_path / "new", "--layout", "courtyard", *options) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "cams",
        "depths",
        "images",
        "pair.txt",
    ]
    assert (tmp_path / "new/depths/00000001.pfm").read_bytes().startswith(b"Pf\n8 9\n")
    assert (tmp_path / "new/cams/00000001_cam.txt").read_text().split()[-2] == "8"


def test_make_data_alone_draws_what_ships(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "mvsnet_edu.data.synthetic.make_scene", lambda folder, progress, **how: drawn.update({folder: how})
    )
    assert run("make-data", tmp_path) == 0
    assert drawn == {tmp_path / name: arguments for name, arguments in SHIPPED.items()}


def test_make_data_refuses(tmp_path, capsys):
    new = ("make-data", tmp_path / "new")
    message = refused(capsys, *new, "--layout", "jungle")
    assert all(layout in message for layout in LAYOUTS)
    assert "--seed needs --layout" in refused(capsys, *new, "--seed", 3)
    for option, values, says in [
        ("--views", [1], "from 2 to 1000 views"),
        ("--views", [10**6], "from 2 to 1000 views"),
        ("--planes", [1], "from 2 to 100000 depth planes"),
        ("--planes", [10**17], "from 2 to 100000 depth planes"),
        ("--size", [32, 30], "multiples of 4 pixels, 32 or more, not 32 x 30"),
        ("--size", [4 * 10**5, 4 * 10**5], "not 400000 x 400000"),
    ]:
        assert says in refused(capsys, *new, "--layout", "courtyard", option, *values)
    assert not (tmp_path / "new").exists()


def test_torch_without_memory_is_one_sentence(tmp_path, monkeypatch, capsys):
    """Torch says so by a RuntimeError; another one is a defect, and stays."""
    drawn = "mvsnet_edu.data.synthetic.render"
    monkeypatch.setattr(drawn, lambda *words, **options: torch.empty(10**15))
    small = ("make-data", tmp_path / "new", "--layout", "courtyard", "--size", 32, 32)
    assert run(*small) == 2
    assert "mvsnet-edu: There is not enough memory for this.\n" in capsys.readouterr().err
    monkeypatch.setattr(drawn, lambda *words, **options: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        run(*small)


def test_the_help_names_every_layout(capsys):
    with pytest.raises(SystemExit):
        run("make-data", "--help")
    text = capsys.readouterr().out
    assert all(layout in text for layout in LAYOUTS)


# --- all together ------------------------------------------------------------------------------------


def test_from_nothing_to_a_cloud(tmp_path):
    scene, out = tmp_path / "scene", tmp_path / "out"
    size = ["--size", 160, 128]
    assert run("make-data", scene, "--layout", "still-life", "--views", 3, *size, "--planes", 32) == 0
    assert run("depth", scene, out, "--device", "cpu") == 0
    assert run("fuse", scene, out, "--min-views", 2, "--max-reprojection", 2) == 0
    assert len(read_ply(out / "fused.ply")) > 100
