"""Point clouds as PLY: round trips, the dialects of other programs, and broken files."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mvsnet_edu.data.ply import PointCloud, read_ply, write_ply
from mvsnet_edu.errors import InputError

real = st.floats(-1e6, 1e6, width=32)


def cloud_of(size: int) -> PointCloud:
    rng = np.random.default_rng(size)
    return PointCloud(rng.normal(size=(size, 3)), rng.integers(0, 256, (size, 3)), rng.normal(size=(size, 3)))


def same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and np.array_equal(one, other)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(0, 20), st.booleans(), st.booleans())
def test_round_trip_is_exact(tmp_path_factory, data, size, colored, oriented):
    path = tmp_path_factory.mktemp("ply") / "cloud.ply"
    cloud = PointCloud(
        data.draw(arrays(np.float32, (size, 3), elements=real)),
        data.draw(arrays(np.uint8, (size, 3))) if colored else None,
        data.draw(arrays(np.float32, (size, 3), elements=real)) if oriented else None,
    )
    write_ply(path, cloud)
    back = read_ply(path)
    assert len(back) == size
    assert (
        same(back.points, cloud.points)
        and same(back.colors, cloud.colors)
        and same(back.normals, cloud.normals)
    )


def test_the_bytes_on_disk(tmp_path):
    write_ply(tmp_path / "cloud.ply", PointCloud([[1, 2, 3], [4, 5, 6]], [[255, 0, 7], [1, 2, 3]]))
    header, body = (tmp_path / "cloud.ply").read_bytes().split(b"end_header\n")
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\n") and b"element vertex 2\n" in header
    assert body == struct.pack("<3f3B3f3B", 1, 2, 3, 255, 0, 7, 4, 5, 6, 1, 2, 3)


HEADER = """ply
format {format} 1.0
comment made by hand
element camera 1
property float focal
element vertex 2
property {real} x
property uchar {color}
property {real} y
property {real} z
property float confidence
element face 1
property list uchar int vertex_indices
end_header
"""


def test_text_with_other_elements_and_properties(tmp_path):
    path = tmp_path / "cloud.ply"
    path.write_text(
        HEADER.format(format="ascii", real="double", color="red") + "50\n1 9 2 3 .5\n4 9 5 6 .5\n2 0 1\n"
    )
    cloud = read_ply(path)
    assert cloud.points.tolist() == [[1, 2, 3], [4, 5, 6]] and cloud.points.dtype == np.float32
    assert cloud.colors is None and cloud.normals is None  # red alone is no colour


@pytest.mark.parametrize(("name", "order"), [("binary_big_endian", ">"), ("binary_little_endian", "<")])
def test_binary_of_both_byte_orders(tmp_path, name, order):
    path = tmp_path / "cloud.ply"
    body = struct.pack(
        f"{order}f dBddf dBddf B2i".replace(" ", ""), 50, 1, 9, 2, 3, 0.5, 4, 9, 5, 6, 0.5, 2, 0, 1
    )
    path.write_bytes(HEADER.format(format=name, real="double", color="red").encode() + body)
    assert read_ply(path).points.tolist() == [[1, 2, 3], [4, 5, 6]]


def ascii_cloud(path, properties: str, rows: str) -> None:
    count = len(rows.splitlines())
    path.write_text(f"ply\nformat ascii 1.0\nelement vertex {count}\n{properties}end_header\n{rows}")


@pytest.mark.parametrize(
    ("kind", "row", "expected"),
    [
        ("uchar", "255 0 51", [255, 0, 51]),
        ("float", "1.0 0 0.2", [255, 0, 51]),
        ("ushort", "65535 0 13107", [255, 0, 51]),
    ],
)
def test_colours_of_other_types(tmp_path, kind, row, expected):
    properties = "".join(f"property float {name}\n" for name in "xyz")
    properties += "".join(f"property {kind} {name}\n" for name in ("red", "green", "blue"))
    ascii_cloud(tmp_path / "cloud.ply", properties, f"1 2 3 {row}\n")
    cloud = read_ply(tmp_path / "cloud.ply")
    assert cloud.colors.tolist() == [expected] and cloud.colors.dtype == np.uint8


def test_a_cloud_without_positions_or_with_broken_ones(tmp_path):
    path, xyz = tmp_path / "cloud.ply", "".join(f"property float {name}\n" for name in "xyz")
    ascii_cloud(path, "property float x\nproperty float y\n", "1 2\n")
    with pytest.raises(InputError, match="cloud.ply has vertices without x, y and z"):
        read_ply(path)
    ascii_cloud(path, xyz, "1 2 3\n1 nan 3\n")
    with pytest.raises(InputError, match="cloud.ply has points whose coordinates are not finite"):
        read_ply(path)
    ascii_cloud(path, xyz, "1 2 3\n1 two 3\n")
    with pytest.raises(InputError, match="cloud.ply"):
        read_ply(path)
    path.write_text("ply\nformat ascii 1.0\nelement face 1\nproperty int x\nend_header\n7\n")
    with pytest.raises(InputError, match="cloud.ply has no vertices"):
        read_ply(path)


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("count", ["1000000000000", "9" * 25])
def test_hostile_counts_are_refused_before_anything_is_allocated(tmp_path, kind, count):
    path = tmp_path / "cloud.ply"
    properties = "".join(f"property double {name}\n" for name in "xyz")
    path.write_text(f"ply\nformat {kind} 1.0\nelement vertex {count}\n{properties}end_header\n1 2 3\n")
    with pytest.raises(InputError, match=f"cloud.ply announces {count} elements"):
        read_ply(path)


def test_truncated_cloud(tmp_path):
    path = tmp_path / "cloud.ply"
    write_ply(path, cloud_of(20))
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="cloud.ply") as error:
            read_ply(path)
        assert "\n" not in str(error.value)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_header_never_raises_anything_else(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("ply") / "cloud.ply"
    write_ply(path, cloud_of(3))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, content.index(b"end_header")))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        assert read_ply(path).points.shape[1] == 3
    except InputError as error:
        assert "cloud.ply" in str(error)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "absent.ply", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            read_ply(path)
    with pytest.raises(InputError, match=str(tmp_path)):
        write_ply(tmp_path, cloud_of(2))


@pytest.mark.parametrize("shapes", [((4, 2), None), ((4, 3), (3, 3)), ((4,), None)])
def test_arrays_that_do_not_fit(shapes):
    points, colors = shapes
    with pytest.raises(ValueError, match="expected an array of shape"):
        PointCloud(np.zeros(points), None if colors is None else np.zeros(colors))
