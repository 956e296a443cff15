"""What one sees of a run: means that are right, and pictures whose greys mean what they should."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from full_disk import no_room_beyond

from mvsnet_edu.data.scene import Sample
from mvsnet_edu.errors import InputError
from mvsnet_edu.models import DepthEstimate
from mvsnet_edu.progress import LOGGED, Progress, panel
from mvsnet_edu.run_folder import RunFolder

ALONE = SimpleNamespace(is_global_zero=True, world_size=1)


def lines(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in folder.lines.read_text().splitlines()]


def curves(folder: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would draw."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder.path))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def test_a_report_is_the_mean_over_the_steps_since_the_last_one_without_those_skipped(tmp_path):
    folder = RunFolder(tmp_path)
    progress = Progress(ALONE, folder, total=9)
    rows = torch.rand(4, len(LOGGED))
    for row in (rows[0], None, rows[1], rows[2]):
        progress.add(row, seconds=2.0, waited=0.5)
    progress.report(rate=0.125)
    progress.add(rows[3], seconds=4.0, waited=3.0)
    progress.report(rate=0.25)
    progress.close()
    first, second = lines(folder)
    assert [first[name] for name in LOGGED] == pytest.approx(rows[:3].mean(dim=0).tolist())
    assert [second[name] for name in LOGGED] == pytest.approx(rows[3].tolist())
    assert (first["step"], first["seconds"], first["rate"]) == (4, 8.0, 0.125)
    assert (first["steps_per_s"], first["waiting"]) == (0.5, 0.25)
    assert (second["steps_per_s"], second["waiting"], second["step"]) == (0.25, 0.75, 5)
    drawn = curves(folder)
    assert drawn["training/rate"] == [(4, 0.125), (5, 0.25)]
    assert drawn["training/loss"][1] == (5, pytest.approx(rows[3, 0].item()))


def test_what_was_seen_after_the_checkpoint_is_dropped_and_sums_go_on(tmp_path):
    folder = RunFolder(tmp_path)
    rows = torch.rand(3, len(LOGGED))
    before = Progress(ALONE, folder, total=4)
    before.add(rows[0], 1.0, 0.0)
    sums = before.sums.clone()
    before.add(rows[1], 1.0, 0.0)
    before.report(rate=1.0)
    before.close()
    after = Progress(ALONE, folder, total=4, step=1, seconds=1.0, sums=sums)
    assert lines(folder) == []
    after.add(rows[2], 1.0, 0.0)
    after.report(rate=0.5)
    after.close()
    (line,) = lines(folder)
    assert line["loss"] == pytest.approx(rows[[0, 2], 0].mean().item()) and line["step"] == 2
    assert curves(folder)["training/rate"] == [(2, 0.5)]


def test_without_room_one_sentence_names_the_file(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    progress = Progress(ALONE, folder, total=4)
    (events,) = tmp_path.glob("events.*")
    with no_room_beyond(2000), pytest.raises(InputError, match=f"{events} cannot be written"):
        progress.picture("noise", torch.rand(3, 40, 40))
    progress.close()
    with no_room_beyond(10), pytest.raises(InputError, match="events.* cannot be written"):
        Progress(ALONE, folder, total=4)
    assert "Traceback" not in capsys.readouterr().err


def test_other_processes_say_nothing(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    silent = Progress(SimpleNamespace(is_global_zero=False, world_size=1), folder, total=4)
    silent.add(torch.rand(len(LOGGED)), 1.0, 0.0)
    silent.report(rate=1.0)
    silent.picture("x", torch.zeros(3, 4, 4))
    silent.close()
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ""


def test_a_panel_shows_photo_truth_depths_error_and_probability():
    h, w = 3, 5
    truth = torch.full((1, h, w), 4.0)
    truth[0, 0, 0], truth[0, 1, 2] = 0, torch.nan
    refined = torch.full((1, h, w), 4.5)
    refined[0, 2, 4] = 40.0
    estimate = DepthEstimate(torch.full((1, h, w), 2.0), torch.full((1, h, w), 0.25), refined)
    images = torch.rand(1, 2, 3, 4 * h, 4 * w)
    planes, interval = torch.linspace(2, 10, 9)[None], torch.tensor([1.0])
    picture = panel(estimate, Sample(images, images, images, planes, interval, truth, [0, 1]))
    assert picture.shape == (3, h, 6 * w)
    photo, true, initial, best, error, probability = picture.split(w, dim=2)
    torch.testing.assert_close(photo[:, 2, 4], images[0, 0, :, 8:12, 16:20].mean(dim=(1, 2)))
    assert true[1, 1, 1] == 0.25 and true[1, 0, 0] == 0 and true[1, 1, 2] == 0
    assert (initial == 0).all() and best[0, 1, 1] == pytest.approx(2.5 / 8) and best[0, 2, 4] == 1
    assert error[2, 1, 1] == pytest.approx(0.5 / 3) and error[2, 2, 4] == 1
    assert error[2, 0, 0] == 0 and error[2, 1, 2] == 0
    assert (probability == 0.25).all()
