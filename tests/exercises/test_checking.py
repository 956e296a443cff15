import ast
import re
from pathlib import Path

import pytest
import torch

from mvsnet_edu import InputError, exercises, soft_argmin
from mvsnet_edu.exercises.checking import examine
from mvsnet_edu.exercises.draw import LEVELS, Draw

from . import (
    test_cameras,
    test_conventions,
    test_cost_volume,
    test_features,
    test_fusion,
    test_homographies,
    test_loss,
    test_photos,
    test_refinement,
    test_regression,
    test_regularization,
    test_rmvsnet,
    test_speed,
    test_testing,
    test_training,
    test_views,
    test_welcome,
)

CHAPTERS = (
    test_welcome,
    test_conventions,
    test_cameras,
    test_views,
    test_features,
    test_homographies,
    test_cost_volume,
    test_regularization,
    test_regression,
    test_refinement,
    test_loss,
    test_training,
    test_rmvsnet,
    test_testing,
    test_fusion,
    test_photos,
    test_speed,
)
BOOK = Path(__file__).parents[2] / "book"
ORDER = [chapter.__name__.rpartition("test_")[2] for chapter in CHAPTERS]


def refusal(name, answer, capsys):
    assert exercises.check(name, answer) is False
    return capsys.readouterr().out


def test_every_exercise_has_a_right_and_three_wrong_answers():
    right = {name for chapter in CHAPTERS for name, answers in chapter.RIGHT.items() if answers}
    wrong = {name for chapter in CHAPTERS for name, answers in chapter.WRONG.items() if len(answers) >= 3}
    assert right == wrong == set(exercises.names())


def test_the_chapter_of_every_exercise_asks_it():
    for name in exercises.names():
        chapter = BOOK / f"{exercises.statement(name).chapter}.ipynb"
        assert f'exercises.statement(\\"{name}\\")' in chapter.read_text(encoding="utf-8"), (name, chapter)


def test_names_are_in_the_order_of_the_book():
    chapters = [exercises.statement(name).chapter for name in exercises.names()]
    assert list(dict.fromkeys(chapters)) == ORDER
    assert chapters == sorted(chapters, key=ORDER.index)


@pytest.mark.parametrize("name", exercises.names())
def test_statement_is_complete(name):
    exercise = exercises.statement(name)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+|project|backproject", name)
    assert exercise.difficulty in (1, 2, 3)
    (function,) = ast.parse(f"def {exercise.signature}: ...").body
    assert [argument.arg for argument in function.args.args] == list(exercise.inputs(Draw(2, 0)))
    markdown = exercise._repr_markdown_()
    assert exercise.question in markdown and f"def {exercise.signature}:" in markdown
    for argument in function.args.args:
        assert re.search(rf"\b{argument.arg}\b", exercise.question)


@pytest.mark.parametrize("name", exercises.names())
def test_inputs_are_the_same_every_time_and_grow(name):
    def entries(level):
        inputs = exercises.statement(name).inputs(Draw(level, 1))
        return [value for value in inputs.values() if isinstance(value, torch.Tensor)]

    for a, b in zip(entries(3), entries(3), strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())
    sizes = [sum(value.numel() for value in entries(level)) for level in LEVELS]
    assert sizes[0] <= sizes[-1] and sizes[0] < 100


@pytest.mark.parametrize("name", exercises.names())
@pytest.mark.parametrize(
    "answer",
    [
        lambda *inputs: None,
        lambda *inputs: ...,
        lambda *inputs: "42",
        lambda *inputs: torch.zeros(7, 1, 7),
        lambda *inputs: (torch.zeros(7),),
        lambda *inputs: 1 / 0,
        lambda: 0,
    ],
    ids=["None", "ellipsis", "string", "wrong shape", "tuple", "raises", "wrong arguments"],
)
def test_bad_results_are_refused_in_a_sentence(name, answer, capsys):
    first = refusal(name, answer, capsys).splitlines()[0]
    assert re.search(r"Your function (raised|returned) .+[.?]$", first)


def test_says_what_came_back_and_what_is_asked_for(capsys):
    assert "returned None where 2 values is asked for" not in refusal(
        "soft-argmin", lambda c, d: None, capsys
    )
    said = refusal("camera-center", lambda E: torch.zeros(4), capsys)
    assert "a tensor (4,) of float32 where a tensor (3,) of float32 is asked for" in said
    said = refusal("camera-center", lambda E: torch.zeros(3, dtype=torch.float64), capsys)
    assert "a tensor (3,) of float64 where" in said
    assert "a list where" in refusal("camera-center", lambda E: [1.0, 2.0, 3.0], capsys)
    assert "ZeroDivisionError: division by zero." in refusal("camera-center", lambda E: 1 / 0, capsys)


@pytest.mark.parametrize("answer", [None, 3, torch.zeros(3)])
def test_an_answer_that_is_no_function_is_refused(answer, capsys):
    assert "The answer must be a function, not" in refusal("project", answer, capsys)


def test_an_interrupt_is_not_swallowed():
    def interrupted(extrinsics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exercises.check("camera-center", interrupted)


def test_an_answer_that_writes_into_its_argument_is_refused(capsys):
    def in_place(intrinsics, scale):
        intrinsics[:2] *= scale
        return intrinsics

    assert "changes its argument intrinsics" in refusal("scale-intrinsics", in_place, capsys)


def test_unknown_name_names_the_nearest():
    with pytest.raises(InputError, match="no exercise 'softargmin'; did you mean soft-argmin"):
        exercises.check("softargmin", soft_argmin)
    with pytest.raises(InputError, match="lists them all"):
        exercises.hint("xyz")


def test_the_counter_example_is_the_smallest():
    failure = examine(exercises.statement("less-k"), lambda e, t, i, k: torch.tensor(0.5))
    assert failure.rows["estimated"].shape == (1, 1, 1)

    def right_for_one_pixel_wide_images(depth, num, start, interval):
        result = (depth - start) / ((num - 1) * interval)
        return result if depth.shape[-1] < 3 else result + 1

    failure = examine(exercises.statement("normalise-depth"), right_for_one_pixel_wide_images)
    assert failure.rows["depth"].shape == (1, 1, 2, 3)


def test_the_expected_value_stays_hidden_where_it_is_the_answer():
    failure = examine(exercises.statement("pixel-centres"), lambda h, w: torch.full((h, w, 2), 0.5 * w))
    assert "expected" in failure.rows
    failure = examine(exercises.statement("measured-mask"), lambda truth: truth != 0)
    assert failure.reason.endswith("what the question asks for.") and "expected" not in failure.rows


def test_only_solved_exercises_are_ticked(capsys, monkeypatch):
    monkeypatch.setattr(exercises, "_solved", set())
    exercises.check("soft-argmin", soft_argmin)
    exercises.check("camera-center", lambda E: E[:3, 3])
    capsys.readouterr()
    exercises.report()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Solved: 1 of {len(exercises.names())}"
    assert [line for line in lines if "✓" in line] == ["  ✓ soft-argmin **"]
    assert "  · camera-center *" in lines


@pytest.mark.parametrize("name", exercises.names())
def test_hint_is_a_sentence_and_no_code(name, capsys):
    exercises.hint(name)
    said = capsys.readouterr().out.strip()
    assert said.endswith((".", "?")) and "return" not in said and "lambda" not in said
