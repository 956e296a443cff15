import platform

import pytest
import torch

from mvsnet_edu import memory
from mvsnet_edu.memory import free_memory, is_out_of_memory, keep_freed_memory

MEMINFO = (
    "MemTotal:       24000000 kB\nMemFree:  1000 kB\nMemAvailable:    5000000 kB\nHugePages_Total:       0\n"
)


def test_linux_tells_what_is_available(tmp_path):
    (tmp_path / "meminfo").write_text(MEMINFO)
    assert memory._free_in_system(tmp_path / "meminfo") == 5000000 * 1024


def test_elsewhere_it_is_half_of_all_or_a_guess(tmp_path, monkeypatch):
    monkeypatch.setattr(
        memory.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10**6}.get, raising=False
    )
    assert memory._free_in_system(tmp_path / "absent") == 4096 * 10**6 // 2
    monkeypatch.delattr(memory.os, "sysconf")
    assert memory._free_in_system(tmp_path / "absent") == 4 * 1024**3


@pytest.mark.parametrize(
    "limit, used",
    [
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ],
)
def test_a_container_has_less(limit, used, tmp_path, monkeypatch):
    assert memory._free_in_container(tmp_path) == float("inf")
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text("3000000\n")
    (tmp_path / used).write_text("1000000\n")
    assert memory._free_in_container(tmp_path) == 2000000
    (tmp_path / limit).write_text("max\n")
    assert memory._free_in_container(tmp_path) == float("inf")
    monkeypatch.setattr(memory, "_free_in_container", lambda: 77)
    assert free_memory("cpu") == 77


def test_a_container_that_is_full_leaves_nothing(tmp_path):
    (tmp_path / "memory.max").write_text("1000")
    (tmp_path / "memory.current").write_text("1001")
    assert memory._free_in_container(tmp_path) == 0


@pytest.mark.parametrize(
    "error, expected",
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("memory"), False),
    ],
)
def test_only_a_lack_of_memory_is_one(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.gpu
def test_what_torch_holds_in_reserve_is_free():
    before = free_memory("cuda")
    held = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    assert free_memory("cuda") < before
    del held
    assert free_memory("cuda") >= before - (1 << 26)


def test_freed_memory_is_kept_where_the_c_library_can():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
