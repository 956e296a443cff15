"""Makes the two tests that every chapter's exercises have, out of tables of right and wrong answers."""

import pytest

from mvsnet_edu import exercises


def both_kinds(right, wrong):
    """A test that right answers are accepted, and one that wrong ones are refused with a counter-example."""
    accepted = [
        pytest.param(n, f, id=f"{n}-{i}") for n, answers in right.items() for i, f in enumerate(answers)
    ]
    refused = [
        pytest.param(n, f, id=f"{n}: {why}") for n, answers in wrong.items() for why, f in answers.items()
    ]

    @pytest.mark.parametrize(("name", "answer"), accepted)
    def test_accepts(name, answer, capsys):
        assert exercises.check(name, answer) is True
        assert capsys.readouterr().out.startswith(f"✓ {name}: ")

    @pytest.mark.parametrize(("name", "answer"), refused)
    def test_refuses(name, answer, capsys):
        assert exercises.check(name, answer) is False
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"✗ {name}: not yet. ")
        assert len(lines) > 2, "no counter-example is shown"

    return test_accepts, test_refuses
