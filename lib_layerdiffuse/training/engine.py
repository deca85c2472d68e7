"""The training loop that every trainer here shares: accelerate, checkpoints, resume, CSV or TensorBoard, sample grids.

A trainer supplies modules, a loss for a batch drawn from a seeded generator, and optionally samples to look at. The
loop owns the schedule, the stop by steps or minutes, gradient clipping, and files under the run's folder:
`state/` (resume), `log.csv`, `samples/step-N.png`, and whatever the trainer's `export` writes.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import pickle
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image

from ..core.errors import InputError, MissingExtraError, OutputError
from ..files.whole_files import check_folder, ordinary_modes
from ..standalone.extras import install_line
from .settings import RunConfig

try:
    from accelerate import Accelerator, PartialState
    from accelerate.utils import set_seed
    from tqdm.auto import tqdm
except ImportError as error:  # optional extra
    raise MissingExtraError(
        f"no module {error.name}",
        "the training extra",
        install_line("training"),
    ) from error

logger = logging.getLogger(__name__)
LOOKS_APART = 10  # steps between two looks at the loss on an accelerator, which has to catch up for each


Figures = Mapping[str, "torch.Tensor | float"]
Modules = dict[str, Any]  # networks by name, wrapped for distributed training
StepLoss = tuple[torch.Tensor, Figures]
Loss = Callable[[Modules, float, torch.Generator], "StepLoss | None"]


@dataclass
class Task:
    """What is trained: modules, the loss of a step (modules, progress in [0,1], generator), what to write and show.

    Figures of a step had better stay tensors on the device: asking for their value makes the CPU wait for it.
    """

    modules: dict[str, torch.nn.Module]
    loss: Loss
    export: Callable[[Path], None]
    samples: Callable[[], Image.Image] | None = None
    second: Loss | None = None  # a second optimiser's loss (a discriminator), on `second_modules`
    second_modules: dict[str, torch.nn.Module] = field(default_factory=dict)
    after_step: Callable[[], None] | None = None
    frozen: tuple[torch.nn.Module, ...] = ()  # what the loss uses but does not train: only moved to the device


def check_tracker(config: RunConfig) -> None:
    """MissingExtraError where the tracker is not installed: at the start, not at the first line of the log."""
    if config.tracker == "tensorboard" and find_spec("tensorboard") is None:
        raise MissingExtraError("no module tensorboard", "it, for --tracker tensorboard", install_line("training"))


class Clock:
    """Training minutes, kept over resumes."""

    def __init__(self, spent: float = 0.0):
        self.spent, self.start = spent, time.monotonic()

    def minutes(self) -> float:
        """Minutes so far, those before a resume included."""
        return self.spent + (time.monotonic() - self.start) / 60


def without_accelerator() -> bool:
    """Whether to ask for the CPU by name: only then are a launcher's processes joined on a machine without a GPU."""
    return not (torch.cuda.is_available() or torch.backends.mps.is_available())


def processes() -> PartialState:
    """The launcher's processes, joined; one when there is no launcher."""
    return PartialState(cpu=without_accelerator())


def training_device() -> torch.device:
    """Where this process trains."""
    return cast("torch.device", processes().device)


def train(task: Task, config: RunConfig) -> dict[str, float]:
    """Run `task` to the end of `config`; returns the last logged figures. Ctrl-C saves a checkpoint and stops."""
    accelerator = Accelerator(cpu=without_accelerator())
    set_seed(config.seed + accelerator.process_index)
    torch.backends.cudnn.benchmark = True  # batches hardly change their shape
    run = _Run(task, config, accelerator)
    if config.resume:
        run.restore()
    try:
        run.loop()
    except KeyboardInterrupt:
        logger.warning("interrupted at step %d: saving a checkpoint before stopping", run.step)
        run.save()
        raise
    run.save()
    if accelerator.is_main_process:
        run.sample()
    accelerator.wait_for_everyone()
    return run.figures


class _Run:
    """One run's state: wrapped modules, optimisers, position, random generator and figures."""

    def __init__(self, task: Task, config: RunConfig, accelerator: Accelerator):
        self.task, self.config, self.accelerator = task, config, accelerator
        self.out = Path(config.out)
        self.step, self.clock = 0, Clock()
        self.averages: dict[str, torch.Tensor | float] = {}
        self.losses: list[torch.Tensor] = []  # since the last look
        self.generator = torch.Generator().manual_seed(config.seed * 1000 + accelerator.process_index)
        for module in task.frozen:
            module.to(accelerator.device)
        self.modules = {name: accelerator.prepare(module) for name, module in task.modules.items()}
        self.second_modules = {name: accelerator.prepare(module) for name, module in task.second_modules.items()}
        self.optimizer = self._optimizer(self.modules)
        self.second_optimizer = self._optimizer(self.second_modules) if task.second else None
        self._prepare_folder()

    def _optimizer(self, modules: Modules) -> Any:
        parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        config = self.config
        return self.accelerator.prepare(
            torch.optim.AdamW(
                parameters,
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                betas=(0.9, 0.99),
                fused=self.accelerator.device.type == "cuda",
            )
        )

    def _prepare_folder(self) -> None:
        check_tracker(self.config)
        if self.accelerator.is_main_process:
            check_folder(self.out)
            self.out.mkdir(parents=True, exist_ok=True)
            about = {**asdict(self.config), "processes": self.accelerator.num_processes}
            (self.out / "run.json").write_text(json.dumps(about, indent=2))
        self.accelerator.wait_for_everyone()

    def progress(self) -> float:
        """How much of the run is done, in [0,1]: the further of steps and minutes."""
        done = self.step / max(1, self.config.steps)
        if self.config.minutes:
            done = max(done, self.clock.minutes() / self.config.minutes)
        # all processes must agree, else one stops while another waits for its gradients
        value = torch.tensor(done, device=self.accelerator.device)
        return min(1.0, self._reduced(value, "mean"))

    def _reduced(self, value: torch.Tensor, how: str) -> float:
        """The sum or mean of a number over all processes."""
        return cast("torch.Tensor", self.accelerator.reduce(value, how)).item()

    def rate(self, progress: float) -> float:
        """Learning rate: linear warm-up, then a cosine down to `final_rate`; torch's schedules do not know minutes."""
        config = self.config
        cosine = config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))
        return config.learning_rate * cosine * min(1.0, (self.step + 1) / max(1, config.warmup))

    def loop(self) -> None:
        """Steps until the run's end, with checkpoints and grids by the clock."""
        bar = tqdm(total=self.config.steps, initial=self.step, disable=not self.accelerator.is_main_process)
        saved = sampled = self.clock.minutes()
        progress = self.progress()
        while progress < 1.0:
            self.optimise(progress)
            self.step += 1
            bar.update()
            if self.step % self.config.log_every == 0:
                self.log(bar)
            if self.step % 10 == 0 or self.config.steps < 100:
                progress = self.progress()
            progress = 1.0 if self.step >= self.config.steps else progress
            now = self.clock.minutes()
            if self._agree(now - saved >= self.config.save_minutes):
                self.save()
                saved = now
            if self.accelerator.is_main_process and now - sampled >= self.config.sample_minutes:
                self.sample()
                sampled = self.clock.minutes()
        bar.close()

    def _agree(self, flag: bool) -> bool:
        """The main process decides, checked every tenth step to keep the processes in step cheaply."""
        if self.step % 10:
            return False
        value = torch.tensor(float(flag and self.accelerator.is_main_process), device=self.accelerator.device)
        return self._reduced(value, "sum") > 0

    def optimise(self, progress: float) -> None:
        """One step of the task, then of its second optimiser."""
        self._step(self.task.loss, self.modules, self.optimizer, progress)
        if self.second_optimizer is not None and self.task.second is not None:
            self._step(self.task.second, self.second_modules, self.second_optimizer, progress)
        if self.task.after_step is not None:
            self.task.after_step()

    def _step(self, loss_of: Loss, modules: Modules, optimizer: Any, progress: float) -> None:
        result = loss_of(modules, progress, self.generator)
        if result is None:  # the second loss may sit out
            return
        loss, figures = result
        self.losses.append(loss.detach().clone())  # compiled graphs write the next loss into the same memory
        if self.accelerator.device.type == "cpu" or self.step % LOOKS_APART == 0:
            self.check_losses()
        for group in optimizer.param_groups:
            group["lr"] = self.rate(progress)
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        self.accelerator.clip_grad_norm_(parameters, self.config.gradient_clip)
        optimizer.step()
        self._average(figures)

    def check_losses(self) -> None:
        """InputError when a loss since the last look was not finite; nothing is saved without a look."""
        losses, self.losses = self.losses, []
        values = torch.stack([loss.float() for loss in losses]).tolist() if losses else []
        wrong = [value for value in values if not math.isfinite(value)]
        if wrong:
            raise InputError(f"loss {wrong[0]} by step {self.step}", "a finite loss", "lower --learning-rate")

    def _average(self, figures: Figures) -> None:
        for name, value in figures.items():
            value = value.detach().float() if isinstance(value, torch.Tensor) else value
            old = self.averages.get(name, value)
            self.averages[name] = 0.95 * old + 0.05 * value

    @property
    def figures(self) -> dict[str, float]:
        """Running means of the steps' figures, as numbers."""
        return {name: float(value) for name, value in self.averages.items()}

    def log(self, bar: tqdm) -> None:
        """Figures to the progress bar and the log; the main process only."""
        if not self.accelerator.is_main_process:
            return
        figures = self.figures
        bar.set_postfix({name: f"{value:.4f}" for name, value in figures.items()})
        row = {"step": self.step, "minutes": round(self.clock.minutes(), 3), **figures}
        if self.config.tracker == "tensorboard":
            self._log_tensorboard(row)
        append_row(self.out / "log.csv", row)

    def _log_tensorboard(self, row: dict[str, float]) -> None:
        if not hasattr(self, "writer"):
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.out / "tensorboard"))
        for name, value in row.items():
            self.writer.add_scalar(name, value, self.step)

    def sample(self) -> None:
        """Write a grid of samples; a run goes on when a grid fails to be written."""
        if self.task.samples is None:
            return
        folder = self.out / "samples"
        folder.mkdir(exist_ok=True)
        with torch.no_grad():
            self.task.samples().save(folder / f"step-{self.step:06d}.png")

    def save(self) -> None:
        """Write a whole checkpoint beside the old one, then swap them, so that a crash never leaves half of one."""
        self.check_losses()
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            try:
                self._write_state()
                self._export()
            except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
                raise OutputError(
                    got=f"{self.out} not written ({error})",
                    expected="a writable disk with room for two checkpoints",
                    what_to_do="free space and start the same command again: it goes on from the last checkpoint",
                ) from error
        self.accelerator.wait_for_everyone()

    def _export(self) -> None:
        self.task.export(self.out)
        ordinary_modes(self.out)

    def _write_state(self) -> None:
        fresh, old = self.out / "state.new", self.out / "state"
        fresh.mkdir(exist_ok=True)
        torch.save(self._state(), fresh / "state.pt")
        if old.exists():
            shutil.rmtree(old)
        fresh.replace(old)

    def _state(self) -> dict:
        unwrap = self.accelerator.unwrap_model
        every = {**self.modules, **self.second_modules}
        return {
            "modules": {name: unwrap(module).state_dict() for name, module in every.items()},
            "optimizer": self.optimizer.state_dict(),
            "second_optimizer": self.second_optimizer.state_dict() if self.second_optimizer else None,
            "step": self.step,
            "minutes": self.clock.minutes(),
            "generator": self.generator.get_state(),
            "figures": self.figures,
        }

    def restore(self) -> None:
        """Go on from the folder's checkpoint, where there is one."""
        # a crash between the two steps of a save leaves the whole checkpoint under the other name
        places = (self.out / name / "state.pt" for name in ("state", "state.new"))
        path = next((place for place in places if place.exists()), None)
        if path is None:
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self._take(state)
        except (RuntimeError, KeyError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise InputError(
                got=f"{path} that does not fit ({str(error).splitlines()[0]})",
                expected="a whole checkpoint of a run with the same shapes",
                what_to_do="use the same options as before, another --out, or --no-resume to start afresh",
            ) from error
        self.step, self.clock, self.averages = state["step"], Clock(state["minutes"]), state["figures"]
        # each process draws its own data: mix the step and the rank in, so that no resumed process repeats another's
        self.generator.manual_seed(hash((self.config.seed, self.step, self.accelerator.process_index)) % 2**31)
        logger.info("resumed at step %d", self.step)

    def _take(self, state: dict) -> None:
        for name, module in {**self.modules, **self.second_modules}.items():
            self.accelerator.unwrap_model(module).load_state_dict(state["modules"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.second_optimizer:
            self.second_optimizer.load_state_dict(state["second_optimizer"])


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add a line to a CSV file; a column that joins later (a discriminator's) is empty in the lines before."""
    rows = []
    if path.exists():
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            known = list(reader.fieldnames or [])
            rows = list(reader) if set(row) - set(known) else []
    else:
        known = []
    columns = [*known, *(name for name in row if name not in known)]
    with path.open("w" if columns != known else "a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        if columns != known:
            writer.writeheader()
            writer.writerows(rows)
        writer.writerow(row)
