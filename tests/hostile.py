"""Bad input by the thousands: small valid files, what can go wrong with them, and a judge of what is said.

Every answer to a damaged file must be a sound result or a refusal: one sentence, an InputError, that names
what it is about. Anything else is a defect: another exception, a hang, a gigabyte taken, code in a file run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import re
import resource
import signal
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mvsnet_edu.errors import InputError

Folder = dict[str, bytes]  # what lies where, relative to a folder

#: Numbers that break what trusts them, as a text file may have them,
WORDS = [
    *("nan", "inf", "-inf", "1e308", "-1e308", "1e39", "1e-320", "0", "-0.0", "-1", "1", "2", "0.5", "1,5"),
    *("65536", "1000000", "2147483648", "1000000000000", "9223372036854775808", "18446744073709551616"),
    *("9" * 400, "9" * 5000, "1_000", "0x10", "１２", "¼", "", "1e", "--1", "true", "\u200b", "\0", '"'),
]
#: and as a binary file.
PATTERNS = [b"\0" * 8, b"\xff" * 8, b"\xff" * 7 + b"\x7f", struct.pack("<d", float("nan"))]
PATTERNS += [struct.pack(order + "q", n) for order in "<>" for n in (-1, 1, 10**6, 2**31 - 1, 2**31, 10**12)]
PATTERNS += [struct.pack(order + kind, x) for order in "<>" for kind, x in (("d", 1e308), ("f", 3e38))]
NUMBER = re.compile(rb"[-+]?\d[\d.]*(?:[eE][-+]?\d+)?")
SPRUNG = "sprung"  # the folder that a pickled trap makes where it is opened


class Trap:
    """Whoever unpickles it runs code of its own."""

    def __reduce__(self) -> tuple:
        return os.mkdir, (SPRUNG,)


# --- what can go wrong with a file -------------------------------------------------------------------


def _truncate(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content) + 1)]


def _lose_the_end(content: bytes, dice: random.Random) -> bytes:
    return content[: -dice.randint(1, 9)]


def _flip(content: bytes, dice: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 8)) if content else 0):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, dice: random.Random) -> bytes:
    pattern = dice.choice(PATTERNS)[: dice.choice((1, 2, 4, 8))]
    start = dice.randrange(min(len(content), dice.choice((64, 1 << 30))) + 1)
    return content[:start] + pattern + content[start + len(pattern) :]


def _insert(content: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(content) + 1)
    return content[:start] + dice.randbytes(dice.choice((1, 8, 1000))) + content[start:]


def _delete(content: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(content) + 1)
    return content[:start] + content[start + dice.choice((1, 2, 16, 200)) :]


def _splice(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content) + 1)] + content[dice.randrange(len(content) + 1) :]


def _number(content: bytes, dice: random.Random) -> bytes:
    """Other numbers in a text."""
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        found = [*NUMBER.finditer(content[:100_000])]
        if not found:
            return _overwrite(content, dice)
        start, stop = dice.choice(found).span()
        content = content[:start] + dice.choice(WORDS).encode() + content[stop:]
    return content


def _one_number_everywhere(content: bytes, dice: random.Random) -> bytes:
    word = dice.choice(WORDS[:14]).encode()
    number = dice.choice(NUMBER.findall(content[:100_000]) or [b"0"])
    return content.replace(number, word)


def _lines(content: bytes, dice: random.Random) -> bytes:
    """Lines lost, repeated or in another order."""
    lines = content.splitlines(keepends=True) or [b""]
    first, other = (dice.randrange(len(lines)) for _ in range(2))
    deed = dice.randrange(4)
    if deed == 0:
        lines[first], lines[other] = lines[other], lines[first]
    elif deed == 1:
        lines.insert(first, lines[other])
    elif deed == 2:
        lines[first] *= dice.choice((2, 1000))
    else:
        del lines[first]
    return b"".join(lines)


def _word(content: bytes, dice: random.Random) -> bytes:
    words = re.findall(rb"[A-Za-z_]{2,}", content[:100_000]) or [b""]
    return content.replace(dice.choice(words), dice.choice([*words, b"", b"..", b"../../etc/passwd"]), 1)


def _spelling(content: bytes, dice: random.Random) -> bytes:
    """What editors and other countries make of a text."""
    changes: list[Callable[[bytes], bytes]] = [
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.decode("latin1").encode("utf-16"),
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\n", b"\r"),
        lambda text: text.replace(b".", b","),
        lambda text: text.replace(b" ", b","),
        lambda text: text.replace(b" ", b"\t"),
        lambda text: text.replace(b" ", b"\xa0"),
        lambda text: text.upper(),
        lambda text: text + b"\x1a",
        lambda text: text.replace(b"\n", b" "),
        lambda text: text.replace(b"\n", b"\xe2\x80\xa8"),
        lambda text: b"\n" * 1000 + text,
        lambda text: text + b"\0" * 1000,
    ]
    return dice.choice(changes)(content)


def _nest(content: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(content) + 1)
    return content[:start] + dice.choice((b"[", b'{"a":', b"(", b"a.")) * 20_000 + content[start:]


def _else(content: bytes, dice: random.Random) -> bytes:
    """Another file under the same name."""
    kind = dice.randrange(5)
    if kind == 0:
        return pickle.dumps({"model": Trap(), "step": Trap()}, protocol=dice.choice((0, 2, 4)))
    if kind == 1:
        return _archive({"archive/data.pkl": pickle.dumps(Trap(), protocol=2), "archive/version": b"3\n"})
    if kind == 2:  # a NumPy file with an object in it
        header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
        return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + pickle.dumps([Trap()])
    return dice.choice((b"", b"\0" * 4096, b"\x89PNG\r\n\x1a\n", dice.randbytes(300), b"\n", b"{}", b"[]"))


MUTATIONS = [_truncate, _lose_the_end, _flip, _flip, _overwrite, _overwrite, _insert, _delete, _splice]
MUTATIONS += [_number, _number, _number, _one_number_everywhere, _lines, _word, _spelling, _nest, _else]


def mutated(content: bytes, dice: random.Random) -> bytes:
    """A file with one to three things wrong, in half of the cases within a part that a checksum protects."""
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        part, wrap = _opened(content, dice) if dice.random() < 0.6 else (content, bytes)
        content = wrap(dice.choice(MUTATIONS)(part, dice))
    return content


def _opened(content: bytes, dice: random.Random) -> tuple[bytes, Callable[[bytes], bytes]]:
    """A part of a PNG, a zip archive or a safetensors file, and what puts another one in its place."""
    with contextlib.suppress(Exception):
        if content.startswith(b"\x89PNG"):
            return _opened_png(content, dice)
        if content.startswith(b"PK"):
            return _opened_archive(content, dice)
        if content[8:9] == b"{":
            size = 8 + int.from_bytes(content[:8], "little")
            return content[8:size], lambda new: struct.pack("<Q", len(new)) + new + content[size:]
    return content, bytes


def _opened_png(content: bytes, dice: random.Random) -> tuple[bytes, Callable[[bytes], bytes]]:
    starts, at = [], 8
    while at < len(content):
        starts.append(at)
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    start = dice.choice(starts)
    size, kind = int.from_bytes(content[start : start + 4], "big"), content[start + 4 : start + 8]
    rest = content[start + 12 + size :]
    return content[start + 8 : start + 8 + size], lambda new: content[:start] + png_chunk(kind, new) + rest


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG file with the checksum that belongs to it."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _opened_archive(content: bytes, dice: random.Random) -> tuple[bytes, Callable[[bytes], bytes]]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    name = dice.choice([name for name in parts if dice.random() < 0.5 or name.endswith(".pkl")] or [*parts])
    return parts[name], lambda new: _archive(parts | {name: new})


def _archive(parts: Folder, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return buffer.getvalue()


# --- what is said about it ---------------------------------------------------------------------------


class Reader(NamedTuple):
    """Something that reads files.

    Attributes:
        name: for the table.
        seed: valid files that it reads.
        read: reads them, in a folder; raises an AssertionError where the result is unsound.
        spared: a pattern of files that are left as they are.
        costly: whether a case takes a second, so that fewer will have to do.
    """

    name: str
    seed: Callable[[], Folder]
    read: Callable[[Path], Any]
    spared: str = "$^"
    costly: bool = False


class Hang(BaseException):
    """A case took too long."""


class Verdict(NamedTuple):
    """What came of a case: "result", "refusal" or "defect", and what was said."""

    kind: str
    said: str = ""


BUSY, WAITING, MEGABYTES = 20, 200, 1500  # what a case may take: seconds of work, and on the clock


def damaged(reader: Reader, seed: Folder, dice: random.Random) -> Folder:
    """The files of a reader, one of them damaged, or gone, or exchanged for another of them."""
    names = [name for name in seed if not re.search(reader.spared, name)]
    name, deed = dice.choice(names), dice.random()
    if deed < 0.02 and len(seed) > 1:
        return {other: content for other, content in seed.items() if other != name}
    if deed < 0.05:
        return seed | {name: seed[dice.choice(names)]}
    return seed | {name: mutated(seed[name], dice)}


def case(reader: Reader, seed: Folder, name: str) -> Folder:
    """The same damage for the same name of a case, whatever came before."""
    return damaged(reader, seed, random.Random(f"{name} {reader.name}"))


def judge(reader: Reader, files: Folder) -> Verdict:
    """Lay files into a folder with an odd name, let the reader read them, and judge what it says."""
    with tempfile.TemporaryDirectory(prefix="照 片 ") as parent, _within(parent):
        folder = Path(parent) / "in put"
        put(folder, files)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        verdict = _answer(reader, folder)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        strays = sorted({path.name for path in Path(parent).iterdir()} - {"in put", "out", "captured"})
        if SPRUNG in strays:
            return Verdict("defect", "code in a file was run")
        if strays:
            return Verdict("defect", f"wrote {strays}")
        if grown > MEGABYTES:
            return Verdict("defect", f"took {grown} MB: {verdict}")
        return verdict


def put(folder: Path, files: Folder) -> None:
    """Write files into a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@contextlib.contextmanager
def _within(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _answer(reader: Reader, folder: Path) -> Verdict:
    try:
        with _in_time(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(folder)
        return Verdict("result")
    except InputError as error:
        said = str(error)
        good = "\n" not in said and folder.name in said and len(said) < 900 + len(str(folder))
        return Verdict("refusal" if good else "defect", f"said {said!r}")
    except AssertionError as error:
        return Verdict("defect", f"unsound: {error}")
    except (Exception, Hang, SystemExit) as error:
        return Verdict("defect", _trace(error))


def _trace(error: BaseException) -> str:
    """Kind, message and the last line of ours that an exception went through."""
    place, trace = "", error.__traceback__
    while trace:
        code = trace.tb_frame.f_code
        if "mvsnet_edu" in code.co_filename:
            place = f"{Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}: {str(error)[:300]}"


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Hang("took too long")

    before = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGPROF)}
    signal.alarm(WAITING)
    signal.setitimer(signal.ITIMER_PROF, BUSY)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def json_of(value: Any) -> bytes:
    """JSON as notebooks have it."""
    return json.dumps(value, indent=1, ensure_ascii=False).encode()
