"""Steps that stay done, and only those."""

from __future__ import annotations

import json

import pytest

from mvsnet_edu.errors import InputError
from mvsnet_edu.steps import Steps, digest


class Command:
    """Two steps, the second of which copies what the first has written."""

    def __init__(self, out):
        self.out, self.done, self.said, self.fail = out, [], [], None

    def run(self, text="one", option=1):
        self.done.clear()
        steps = Steps(self.out, self.said.append)
        first, second = self.out / "first", self.out / "second.txt"
        steps.run("first", text, [first], lambda: self.make("first", first / "a.txt", text))
        steps.run("second", option, [second], lambda: self.make("second", second, f"{text}{option}"))
        return list(self.done)

    def make(self, name, path, text):
        self.done.append(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text[: len(text) // 2])
        if self.fail == name:
            raise KeyboardInterrupt
        path.write_text(text)


@pytest.fixture
def command(tmp_path):
    return Command(tmp_path / "out")


def test_what_is_done_is_not_repeated(command):
    assert command.run() == ["first", "second"]
    assert command.run() == [] and command.said[-1] == "second: done before"


def test_a_changed_setting_repeats_its_step_and_those_after_it(command):
    command.run()
    assert command.run(option=2) == ["second"]
    assert command.run(text="two", option=2) == ["first", "second"]
    assert (command.out / "second.txt").read_text() == "two2"


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_step_that_was_stopped_is_done_again(command, name):
    command.fail = name
    with pytest.raises(KeyboardInterrupt):
        command.run()
    command.fail = None
    assert command.run() == (["first", "second"] if name == "first" else ["second"])
    assert (command.out / "first" / "a.txt").read_text() == "one"


def test_a_step_that_was_stopped_while_it_was_repeated_is_done_again_with_the_old_setting_too(command):
    command.run("three")
    command.fail = "first"
    with pytest.raises(KeyboardInterrupt):
        command.run("fours")
    command.fail = None
    assert command.run("three")[0] == "first"
    assert (command.out / "first" / "a.txt").read_text() == "three"


def test_results_that_were_deleted_or_cut_are_made_again(command):
    command.run()
    (command.out / "second.txt").unlink()
    assert command.run() == ["second"]
    (command.out / "first" / "a.txt").write_text("o")
    assert command.run() == ["first"]
    (command.out / "first" / "stranger.txt").write_text("")
    assert command.run() == ["first"] and not (command.out / "first" / "stranger.txt").exists()


def test_a_broken_record_counts_as_none(command):
    command.run()
    (command.out / "steps" / "second.json").write_text('{"inputs": ')
    assert command.run() == ["second"]


def test_a_step_that_resumes_finds_what_it_left_unless_the_setting_changed(tmp_path):
    def run(setting):
        path, found = tmp_path / "out" / "half.txt", []

        def make():
            found.append(path.exists())
            path.write_text("half")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Steps(tmp_path / "out", lambda line: None).run("a", setting, [path], make, resumes=True)
        return found[0]

    assert [run(1), run(1), run(2), run(2)] == [False, True, False, True]


def test_what_must_not_outlive_a_result_goes_with_it(tmp_path):
    out, later = tmp_path / "out", tmp_path / "out" / "later"
    for setting in (1, 1, 2):
        made = Steps(out, lambda line: None).run("a", setting, [], lambda: None, stale=[later])
        assert later.exists() != made
        later.mkdir(exist_ok=True)


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        Steps(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        Steps(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_record_is_written_after_the_results(command):
    seen = []
    make = command.make
    record = command.out / "steps" / "first.json"
    command.make = lambda *words: (make(*words), seen.append(json.loads(record.read_text())["files"]))
    command.run()
    assert seen[0] is None and json.loads(record.read_text())["files"] == {"first/a.txt": 3}


def test_a_digest_depends_on_names_and_contents_but_not_on_the_order(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("x")
    b.write_text("y")
    both = digest([a, b])
    assert both == digest([b, a])
    b.write_text("z")
    assert both != digest([a, b])
    a.write_text("z")
    b.write_text("x")
    assert len({both, digest([a, b]), digest([a])}) == 3
