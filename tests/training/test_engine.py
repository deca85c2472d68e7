"""The training loop: checkpoints, resume, log, errors."""

from __future__ import annotations

import csv

import pytest
import torch

from lib_layerdiffuse.core.errors import InputError, MissingExtraError, OutputError
from lib_layerdiffuse.training import engine
from lib_layerdiffuse.training.engine import Task, append_row, train

from .toys import short_run


class Line(torch.nn.Module):
    """Fits y = 3 x."""

    def __init__(self, width: int = 1):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(width, 1, bias=False)

    def forward(self, value: torch.Tensor):
        loss = (self.layer(value) - 3 * value.sum(1, keepdim=True)).square().mean()
        return loss, {"loss": loss.item()}


def task_of(model: Line, progress: list | None = None, export=lambda out: None) -> Task:
    def loss(modules, share, generator):
        if progress is not None:
            progress.append(share)
        return modules["line"](torch.randn(8, model.layer.in_features, generator=generator))

    return Task({"line": model}, loss, export)


def test_it_learns_and_progress_runs_from_nought_to_one(tmp_path):
    model, progress = Line(), []
    train(task_of(model, progress), short_run(tmp_path, 50, learning_rate=0.2, weight_decay=0.0))
    assert model.layer.weight.item() == pytest.approx(3, abs=0.1)
    assert progress[0] == 0 and progress[-1] == pytest.approx(49 / 50) and progress == sorted(progress)


def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path):
    class Interrupted(Line):
        def forward(self, value):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 4:
                raise KeyboardInterrupt
            return super().forward(value)

    first = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        train(task_of(first), short_run(tmp_path, 10))
    second = Line()
    train(task_of(second), short_run(tmp_path, 3))
    assert torch.equal(second.layer.weight, first.layer.weight)


def test_a_crash_between_the_two_steps_of_a_save_loses_nothing(tmp_path):
    first = Line()
    train(task_of(first), short_run(tmp_path, 4))
    (tmp_path / "state").rename(tmp_path / "state.new")
    second = Line()
    train(task_of(second), short_run(tmp_path, 4))
    assert torch.equal(second.layer.weight, first.layer.weight)


@pytest.mark.parametrize("change", ["shape", "cut", "foreign"])
def test_a_checkpoint_that_does_not_fit_is_named(tmp_path, change):
    train(task_of(Line()), short_run(tmp_path, 2))
    path = tmp_path / "state" / "state.pt"
    if change == "cut":
        path.write_bytes(path.read_bytes()[:300])
    if change == "foreign":
        path.write_bytes(b"hello")
    with pytest.raises(InputError, match=r"state\.pt"):
        train(task_of(Line(2 if change == "shape" else 1)), short_run(tmp_path, 4))
    train(task_of(Line(2)), short_run(tmp_path, 4, resume=False))


def test_a_full_disk_is_an_output_error(tmp_path):
    def export(out):
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        train(task_of(Line(), export=export), short_run(tmp_path, 2))


def test_a_loss_that_is_no_number_is_an_error(tmp_path):
    model = Line()
    torch.nn.init.constant_(model.layer.weight, float("nan"))
    with pytest.raises(InputError, match="loss nan by step 0"):
        train(task_of(model), short_run(tmp_path, 2))


def test_tensorboard_is_written_beside_the_csv(tmp_path):
    pytest.importorskip("tensorboard")
    train(task_of(Line()), short_run(tmp_path, 2, tracker="tensorboard"))
    assert list((tmp_path / "tensorboard").glob("events.*"))
    assert (tmp_path / "log.csv").exists()


def test_an_unknown_tracker_is_refused(tmp_path):
    with pytest.raises(InputError, match="tracker"):
        train(task_of(Line()), short_run(tmp_path, 2, tracker="paper"))


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"batch": 0}, {"batch": 1.5}, {"learning_rate": float("nan")}, {"seed": -1}, {"resume": "no"},
     {"minutes": -1}, {"log_every": 0}, {"learning_rate": "fast"}, {"gradient_clip": 0}],
)  # fmt: skip
def test_settings_of_a_run_are_checked_by_the_options_name(tmp_path, wrong):
    name = "--" + next(iter(wrong)).replace("_", "-")
    with pytest.raises(InputError, match=name):
        short_run(tmp_path, **{"steps": 3, **wrong})


def test_a_tracker_that_is_not_installed_is_told_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="tensorboard"):
        train(task_of(Line()), short_run(tmp_path, 2, tracker="tensorboard", log_every=100))


def test_columns_that_join_later_keep_the_log_readable(tmp_path):
    path = tmp_path / "log.csv"
    append_row(path, {"step": 1, "loss": 2.0})
    append_row(path, {"step": 2, "loss": 1.0, "discriminator": 0.5})
    append_row(path, {"step": 3, "loss": 1.0})
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [row["discriminator"] for row in rows] == ["", "0.5", ""]
