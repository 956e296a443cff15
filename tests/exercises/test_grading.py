"""Assignments are made, solved and marked; no answer, however hostile, gets through or stops the marking."""

import ast
import json
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from mvsnet_edu import InputError, exercises
from mvsnet_edu.exercises.answering import Cell, answer_of, needed
from mvsnet_edu.exercises.remote import remote_answer
from mvsnet_edu.exercises.wire import decode, encode, receive

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process limits")

RIGHT = {
    "count-planes": "def count_planes(a, b, interval):\n    return round((b - a) / interval) + 1",
    "camera-center": "def camera_center(E):\n    return -E[:3, :3].T @ E[:3, 3]",
    "measured-mask": "def measured_mask(truth):\n    return torch.isfinite(truth) & (truth > 0)",
}


def notebook(path, answers, *helpers, metadata=None):
    """An assignment with bodies written into its stubs, and more cells before them."""
    exercises.export(path, names=list(answers))
    content = json.loads(path.read_text())
    for cell in content["cells"]:
        name = cell["id"].removeprefix("answer-")
        if cell["id"].startswith("answer-") and answers[name]:
            cell["source"] = answers[name]
    content["cells"][1:1] = [{"cell_type": "code", "source": helper} for helper in helpers]
    content["metadata"] = content["metadata"] if metadata is None else metadata
    path.write_text(json.dumps(content))
    return path


# making


def test_an_assignment_is_a_notebook_with_questions_stubs_and_checks(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    path = exercises.export(tmp_path / "a.ipynb", chapters=["welcome", "loss"])
    content = nbformat.read(path, as_version=4)
    nbformat.validate(content)
    asked = [n for n in exercises.names() if exercises.statement(n).chapter in ("welcome", "loss")]
    assert content.metadata.mvsnet_edu == asked
    cells = {cell["id"]: cell for cell in content.cells}
    for name in asked:
        exercise = exercises.statement(name)
        assert exercise.question in cells[f"ask-{name}"].source
        (stub,) = ast.parse(cells[f"answer-{name}"].source).body
        assert ast.unparse(stub.body) == "..." and exercise.signature.startswith(stub.name + "(")
        assert cells[f"check-{name}"].source == f'exercises.check("{name}", {stub.name})'
    assert "return" not in "".join(cell.source for cell in content.cells if cell.cell_type == "code")


def test_names_keep_their_order(tmp_path):
    path = exercises.export(tmp_path / "a.ipynb", names=["soft-argmin", "count-planes"])
    assert json.loads(path.read_text())["metadata"]["mvsnet_edu"] == ["soft-argmin", "count-planes"]


def test_what_cannot_be_exported_is_said_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="no chapter 'lost' with exercises; there are welcome"):
        exercises.export(tmp_path / "a.ipynb", chapters=["lost"])
    with pytest.raises(InputError, match="did you mean soft-argmin"):
        exercises.export(tmp_path / "a.ipynb", names=["softargmin"])
    assert not (tmp_path / "a.ipynb").exists()


# marking


def test_right_wrong_and_missing_answers_get_their_marks(tmp_path):
    answers = {
        "backproject": "",
        "camera-center": "def camera_center(E):\n    return E[:3, 3]",
        "measured-mask": RIGHT["measured-mask"],
        "count-planes": "count_planes = 3 +",
    }
    grades = exercises.grade(notebook(tmp_path / "a.ipynb", answers))
    assert [mark.verdict for mark in grades.marks] == ["missing", "wrong", "right", "missing"]
    assert (grades.points, grades.of) == (1, 3 + 1 + 1 + 1)
    said = [mark.said for mark in grades.marks]
    assert said[0] == "Nothing was written." and "got         (3,)" in said[1] and said[2] == ""
    assert said[3] == "The notebook has no function count_planes that Python can read."
    assert str(grades).splitlines()[0].endswith("a.ipynb: 1 of 6 points")
    assert json.loads(grades.json())["marks"][2]["verdict"] == "right"


def test_answers_share_helpers_and_each_other_but_not_the_trouble_of_other_cells(tmp_path):
    helpers = [
        "%matplotlib inline\nimport torch\nscale = 1\n!ls",
        "while True:\n    unrelated = 1",
        "import os\nos._exit(3)",
        "def half(x):\n    return scale * x / 2\nraise ValueError('after the definition')",
    ]
    answers = {
        "count-planes": "def count_planes(a, b, i):\n    return round(2 * half((b - a) / i)) + one",
        "two-term-loss": "def two_term_loss(initial, refined):\n    return half(initial + refined)",
    }
    signature = exercises.statement("two-term-loss").signature
    answers["two-term-loss"] = (
        f"def {signature}:\n    first, second, *rest = "
        f"({signature.split('(')[1].rstrip(')')},)\n    return mvs.mvsnet_loss(first, second, *rest)"
    )
    path = notebook(tmp_path / "a.ipynb", answers, *helpers, "import mvsnet_edu as mvs\none = 1")
    assert [mark.verdict for mark in exercises.grade(path).marks] == ["right", "right"]


def test_a_chapter_of_the_book_can_be_marked_and_functions_cross_to_the_other_process():
    chapter = Path(__file__).parents[2] / "book" / "refinement.ipynb"
    grades = exercises.grade(chapter, ["refine-with-residual", "scale-equivariance"])
    assert [mark.said for mark in grades.marks] == ["", ""] and grades.points == grades.of == 2 + 3


def test_an_answer_that_cuts_the_gradient_is_refused_here_too(tmp_path):
    good = "import mvsnet_edu as mvs\ndef soft_argmin(cost, d):\n    return mvs.soft_argmin(cost, d)"
    cut = good.replace("return mvs.soft_argmin(cost", "return mvs.soft_argmin(cost.detach()")
    marks = [
        exercises.grade(notebook(tmp_path / "a.ipynb", {"soft-argmin": text})).marks[0]
        for text in (good, cut)
    ]
    assert [mark.verdict for mark in marks] == ["right", "wrong"]
    assert "carries no gradient" in marks[1].said


HOSTILE = {
    "loops": "def camera_center(E):\n    while True: pass",
    "loops at once": "while True: pass\ndef camera_center(E): return 1",
    "sleeps": "import time\ndef camera_center(E): time.sleep(1e6)",
    "raises": "def camera_center(E): return 1 / 0",
    "exits": "import sys\ndef camera_center(E): sys.exit(0)",
    "exits at once": "import sys\nsys.exit(0)\ndef camera_center(E): return 1",
    "quits without a word": "import os\ndef camera_center(E): os._exit(0)",
    "takes all memory": "def camera_center(E): return torch.ones(10**10)",
    "takes it bit by bit": "def camera_center(E):\n    x = [b'1']\n    while True: x.append(x[-1] + x[-1])",
    "returns too much": "def camera_center(E): return torch.zeros(64 * 1024**2 // 3)",
    "returns itself": "def camera_center(E):\n    x = []\n    x.append(x)\n    return x",
    "recurses": "def camera_center(E): return camera_center(E)",
    "floods": "def camera_center(E):\n    while True: print('x' * 10**6)",
    "fills the disk": "def camera_center(E):\n    f = open('a', 'wb')\n    while True: f.write(bytes(10**6))",
    "kills its parent": "import os, signal\ndef camera_center(E): os.kill(os.getppid(), signal.SIGKILL)",
    "kills its group": "import os, signal\ndef camera_center(E): os.killpg(0, signal.SIGKILL)",
    "stops": "import os, signal\ndef camera_center(E): os.kill(os.getpid(), signal.SIGSTOP)",
    "crashes": "import ctypes\ndef camera_center(E): ctypes.string_at(0)",
    "patches the checker": (
        "import mvsnet_edu.exercises.checking as checking, mvsnet_edu.exercises as e, torch\n"
        "checking.examine = lambda *a: None\nchecking._agree = lambda *a: True\n"
        "torch.allclose = lambda *a, **k: True\ntorch.Tensor.__eq__ = lambda a, b: True\n"
        "e.grade = lambda *a: 0\ndef camera_center(E): return torch.zeros(3)"
    ),
    "equals everything": (
        "class Yes:\n    def __eq__(self, other): return True\n"
        "    shape, dtype = (3,), torch.float32\ndef camera_center(E): return Yes()"
    ),
    "writes to every line it finds": (
        "import os\ndef camera_center(E):\n    for fd in range(3, 64):\n"
        '        try: os.write(fd, (9).to_bytes(8, "little") + b\'{"r": 1}\' * 9)\n'
        "        except OSError: pass\n    return torch.zeros(3)"
    ),
    "closes every line": "import os\ndef camera_center(E): os.closerange(3, 64)",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_answers_get_no_point_and_end(kind, tmp_path):
    path = notebook(tmp_path / "a.ipynb", {"camera-center": HOSTILE[kind]}, "import torch")
    (mark,) = exercises.grade(path, time_limit=4, memory_limit=10**9).marks
    assert mark.points == 0 and mark.said and mark.seconds < 60
    assert mark.verdict == ("missing" if kind == "exits at once" else mark.verdict) != "right"


def test_after_a_hostile_answer_the_next_gets_its_point(tmp_path):
    answers = {"camera-center": HOSTILE["kills its parent"], "count-planes": RIGHT["count-planes"]}
    grades = exercises.grade(notebook(tmp_path / "a.ipynb", answers, "import torch"))
    assert [mark.points for mark in grades.marks] == [0, 1]


def test_what_an_answer_leaves_running_is_ended(tmp_path):
    trace = tmp_path / "alive"
    leaving = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        f"    while True:\n        open({str(trace)!r}, 'a').write('x'); time.sleep(0.05)\n"
        + RIGHT["camera-center"]
    )
    path = notebook(tmp_path / "a.ipynb", {"camera-center": leaving}, "import torch")
    assert exercises.grade(path).points == 1
    size = os.path.getsize(trace)
    time.sleep(0.5)
    assert size > 0 and os.path.getsize(trace) == size


def test_an_answer_that_writes_into_its_argument_is_refused_here_too(tmp_path):
    in_place = "def camera_center(E):\n    R = E[:3, :3].T.clone()\n    E *= 2\n    return -R @ E[:3, 3] / 2"
    (mark,) = exercises.grade(notebook(tmp_path / "a.ipynb", {"camera-center": in_place})).marks
    assert mark.verdict == "wrong" and "changes its argument" in mark.said


# reading


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file"),
        ('{"cells": [{"cell_type": "code", "sou', "is not a whole notebook"),
        (b"\xff\xd8\xff\xe0", "is not a whole notebook"),
        ("[" * 100_000, "is not a whole notebook"),
        ("[1, 2]", "no notebook of format 4"),
        ('{"worksheets": []}', "no notebook of format 4"),
        ('{"cells": ["a"]}', "no notebook of format 4"),
        ('{"cells": []}', "has no exercise: no cell calls"),
        ('{"cells": [], "metadata": {"mvsnet_edu": [["x"]]}}', "there is no exercise"),
    ],
)
def test_no_notebook_is_one_sentence(content, sentence, tmp_path):
    path = tmp_path / "a.ipynb"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=sentence) as caught:
        exercises.grade(path)
    assert "\n" not in str(caught.value)


def test_a_notebook_without_our_metadata_is_marked_by_its_checks(tmp_path):
    path = notebook(tmp_path / "a.ipynb", {"count-planes": RIGHT["count-planes"]}, metadata={})
    assert exercises.grade(path).points == 1


# what the process of an answer is made of


def test_cells_are_taken_apart():
    cell = Cell.of("import a.b as c, d.e\nfrom f import *\ndef g(x, y=h):\n    z = i\n    return z + x")
    assert cell.binds == {"c", "d", "g"} and cell.uses >= {"h", "i"} and cell.stars
    assert not {"x", "z"} & (cell.uses | cell.binds)
    assert Cell.of("def f(x):\n    ...").stubs == {"f"}
    assert [Cell.of(text) for text in ("f(", "a\0b", "(" * 10_000)] == [None] * 3
    assert Cell.of("x = (a\n  % b)").uses == {"a", "b"}
    assert Cell.of("def f():\n    check('less-k', g)").binds == {"f"}


def test_the_last_check_names_the_answer():
    cells = ["f = 1\ng = 2", "exercises.check('less-k', f)", "assert exercises.check('less-k', g)"]
    assert answer_of(cells, "less-k", "less_k") == 2
    assert "has no function less_k" in answer_of(["x = 1"], "less-k", "less_k")
    assert answer_of(["less_k = 1 / 0"], "less-k", "less_k").endswith("ZeroDivisionError: division by zero.")


def test_needed_cells_are_few_and_in_order():
    cells = [Cell.of(text) for text in ("a = b", "c = 1", "b = 2", "def f():\n    return a")]
    assert [cell.source for cell in needed(cells, "f")] == ["a = b", "b = 2", cells[3].source]


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(6.0).reshape(2, 3).T,
        torch.zeros(0, 4, dtype=torch.int64),
        torch.tensor(True),
        torch.tensor([1.0, float("nan"), -0.0], dtype=torch.bfloat16),
        (1, [2.5, None, "three", False], (float("inf"),)),
    ],
)
def test_values_survive_the_wire(value):
    there = decode(json.loads(json.dumps(encode(value))))
    if isinstance(value, torch.Tensor):
        assert there.dtype == value.dtype and there.shape == value.shape
        assert torch.equal(there.nan_to_num(), value.nan_to_num())
    else:
        assert there == value


def test_a_message_that_comes_byte_by_byte_is_not_waited_for_beyond_the_deadline():
    here, there = socket.socketpair()
    there.sendall(struct.pack("<Q", 1000))
    dripping = threading.Thread(target=lambda: [(there.sendall(b"x"), time.sleep(0.02)) for _ in range(100)])
    dripping.start()
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        receive(here, started + 0.3)
    assert time.monotonic() - started < 1.5
    dripping.join()


def test_gradients_through_another_process_are_those_of_this_one():
    source = "def f(a, b):\n    return (a * b).sum(0), [a.detach(), b.exp()]"
    a = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, dtype=torch.float64, requires_grad=True)
    with remote_answer() as answer:
        assert answer.start(([source], "f", "f"), 10**9, 60) is None
        product, (plain, exponential) = answer(a, b)
        assert not plain.requires_grad and torch.equal(plain, a)
        loss = (product * torch.tensor([1.0, 2.0, 3.0])).sum() + exponential.prod()
        there = torch.autograd.grad(loss, (a, b))
    here = torch.autograd.grad(
        ((a * b).sum(0) * torch.tensor([1.0, 2.0, 3.0])).sum() + b.exp().prod(), (a, b)
    )
    assert all(map(torch.allclose, there, here))
