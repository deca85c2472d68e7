"""The running WebUI: settings, state, callbacks, scripts, and the modules by which extensions reach them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import itertools
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from fakes.compositing import colour_corrected
from fakes.grids import combine_grid, split_grid
from fakes.pictures import Images, write_file
from fakes.prompts import parse_prompts
from fakes.scripts import SCRIPTS, SCRIPTS_POSTPROCESSING, Runner

CALLBACKS = (
    "app_started",
    "before_image_saved",
    "before_reload",
    "before_ui",
    "after_component",
    "cfg_after_cfg",
    "cfg_denoised",
    "cfg_denoiser",
    "image_grid",
    "image_saved",
    "infotext_pasted",
    "model_loaded",
    "script_unloaded",
    "ui_settings",
    "ui_tabs",
)
OF_PICTURES = ("before_image_saved", "image_grid", "image_saved")  # whose callers other modules reach by name
OPTIONS = {
    "batch_cond_uncond": True,
    "enable_pnginfo": True,
    "export_for_4chan": False,
    "grid_extended_filename": False,
    "grid_only_if_multiple": True,
    "grid_save": True,
    "img2img_background_color": "#ffffff",
    "img2img_color_correction": False,
    "jpeg_quality": 80,
    "overlay_inpaint": True,
    "return_grid": True,
    "return_mask": False,
    "return_mask_composite": False,
    "samples_format": "png",
    "samples_save": True,
    "save_images_before_color_correction": False,
    "save_images_before_face_restoration": False,
    "save_images_before_highres_fix": False,
    "save_init_img": False,
    "save_mask": False,
    "save_mask_composite": False,
    "save_txt": False,
    "sd_model_checkpoint": "",
    "sd_vae_encode_method": "Full",
    "target_side_length": 4000,
    "skip_early_cond": 0.0,
    "s_min_uncond_all": False,
    "token_merging_ratio": 0.0,
    "token_merging_ratio_hr": 0.0,
}


class NansException(Exception):
    """What a WebUI raises for a picture of NaNs."""


class InterruptedException(BaseException):
    """What ends the sampling when the user interrupts."""


class OptionInfo:
    """A row of the settings page."""

    def __init__(self, default: Any = None, label: str = "", component: Any = None, **more: Any):
        self.default, self.label, self.component, self.more = default, label, component, more


class Options:
    """`shared.opts`: what was set, else the default; AttributeError for what nobody registered."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.data_labels = {name: OptionInfo(default) for name, default in OPTIONS.items()}

    def add_option(self, key: str, info: OptionInfo) -> None:
        """Register a setting."""
        self.data_labels[key] = info

    def set(self, key: str, value: Any) -> None:
        """Change a setting."""
        self.data[key] = value

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("data", {}):
            return self.data[name]
        if name in self.__dict__.get("data_labels", {}):
            return self.data_labels[name].default
        raise AttributeError(name)


class State(SimpleNamespace):
    """`shared.state`."""

    def __init__(self) -> None:
        super().__init__(interrupted=False, skipped=False, stopping_generation=False, textinfo=None)
        self.job, self.job_count, self.sampling_step, self.sampling_steps, self.current_latent = "", -1, 0, 0, None
        self.job_no = 0

    def begin(self, job: str = "") -> None:
        """A job starts."""
        self.job, self.job_no, self.job_count, self.sampling_step = job, 0, -1, 0
        self.interrupted = self.skipped = False

    def end(self) -> None:
        """It is over."""
        self.job, self.job_count = "", 0

    def interrupt(self) -> None:
        """The user's button."""
        self.interrupted = True

    def nextjob(self) -> None:
        """Between batches and passes."""
        self.job_no += 1


class Callbacks:
    """`modules.script_callbacks`: exceptions of callbacks are reported, not raised."""

    def __init__(self, report: Callable[[str, Exception], None]):
        self.report, self.lists = report, {name: [] for name in CALLBACKS}

    def module(self) -> dict[str, Any]:
        """Its functions."""
        functions = {f"on_{name}": self._registrar(name) for name in CALLBACKS}
        told = {f"{name}_callback": functools.partial(self.fire, name) for name in OF_PICTURES}
        return functions | told | {"clear_callbacks": self.clear}

    def _registrar(self, kind: str) -> Callable[..., None]:
        def register(callback: Callable[..., Any], *, name: str | None = None) -> None:
            self.lists[kind].append(callback)

        return register

    def clear(self) -> None:
        """What 'Reload UI' does first."""
        for callbacks in self.lists.values():
            callbacks.clear()

    def fire(self, name: str, *arguments: Any, **named: Any) -> None:
        """Call all of one kind."""
        for callback in list(self.lists[name]):
            try:
                callback(*arguments, **named)
            except Exception as error:  # noqa: BLE001 a WebUI reports whatever it is
                self.report(f"callback {name}", error)


def make_module(name: str, **attributes: Any) -> types.ModuleType:
    """A module that can be found and imported by name."""
    made = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, None, is_package=True))
    made.__dict__.update(attributes)
    return made


class WebUI:
    """One WebUI; `engine` is what differs between AUTOMATIC1111 and Forge."""

    def __init__(self, folder: Path, models: Path, make_engine: Callable[[WebUI], Any]):
        self.folder, self.models = folder, models
        self.errors: list[tuple[str, Exception]] = []
        self.opts, self.state = Options(), State()
        self.callbacks = Callbacks(self.report)
        self.images = Images(self)
        self.cmd_opts = SimpleNamespace(disable_nan_check=False, no_half=True)
        self.sd_unet = SimpleNamespace(current_unet=None)
        self.engine = make_engine(self)
        self.extra_scripts: list[type] = []  # of other extensions
        self.runners: dict[bool, Runner] = {}
        self.entry: types.ModuleType | None = None

    def report(self, where: str, error: Exception) -> None:
        """What a WebUI prints and swallows."""
        self.errors.append((where, error))

    @property
    def sd_model(self) -> Any:
        """The model that is loaded now."""
        return self.engine.sd_model

    # --- modules

    def modules(self) -> dict[str, types.ModuleType]:
        """All modules of this WebUI, by full name."""
        named = {
            "": {},
            "call_queue": {"queue_lock": threading.Lock(), "wrap_gradio_gpu_call": self._in_queue},
            "devices": self._devices(),
            "extra_networks": {"parse_prompts": parse_prompts},
            "images": self._image_functions(),
            "processing": {"apply_color_correction": colour_corrected, "process_images": process_images},
            "paths": {"models_path": str(self.models), "data_path": str(self.folder)},
            "script_callbacks": self.callbacks.module(),
            "sd_models": {"model_data": self.engine.model_data},
            "sd_samplers": {"visible_samplers": visible_samplers},
            "sd_samplers_common": {"InterruptedException": InterruptedException},
            "sd_unet": {"current_unet": None},
            "shared": self._shared(),
        }
        found = {f"modules.{name}" if name else "modules": make_module(name, **more) for name, more in named.items()}
        found["modules.scripts"] = SCRIPTS
        found["modules.scripts_postprocessing"] = SCRIPTS_POSTPROCESSING
        found["modules.ui_components"] = LazyComponents("modules.ui_components")
        shared = found["modules.shared"]
        shared.__class__ = SharedModule
        shared.webui = self
        return found | self.engine.modules()

    def _in_queue(self, function: Callable[..., Any], extra_outputs: list[Any] | None = None) -> Callable[..., Any]:
        """A function of the page in the WebUI's queue, as a task of its own; under what it tells stands the time."""

        @functools.wraps(function)
        def call(*arguments: Any) -> tuple[Any, ...]:
            with sys.modules["modules.call_queue"].queue_lock:
                self.state.begin(job=arguments[0])
                try:
                    *others, last = function(*arguments)
                finally:
                    self.fresh_state()
            return (*others, f"{last}<p>1 s</p>")

        return call

    def _devices(self) -> dict[str, Any]:
        device = torch.device("cpu")
        return {
            "device": device,
            "cpu": device,
            "dtype": torch.float32,
            "dtype_vae": torch.float32,
            "autocast": self.engine.autocast,
            "torch_gc": lambda: None,
            "NansException": NansException,
        }

    def _image_functions(self) -> dict[str, Any]:
        names = ("flatten", "resize_image", "image_grid", "save_image")
        tiles = {"split_grid": split_grid, "combine_grid": combine_grid}
        writer = {"save_image_with_geninfo": functools.partial(write_file, self.opts)}
        return {name: getattr(self.images, name) for name in names} | tiles | writer

    def _shared(self) -> dict[str, Any]:
        return {
            "opts": self.opts,
            "state": self.state,
            "cmd_opts": self.cmd_opts,
            "device": torch.device("cpu"),
            "OptionInfo": OptionInfo,
            "hide_dirs": {"visible": True},
        }

    def install(self, monkeypatch: Any) -> WebUI:
        """Let `import modules...` find this WebUI until the test ends."""
        for name in [name for name in sys.modules if name.split(".")[0] in ("modules", "networks", "backend")]:
            monkeypatch.delitem(sys.modules, name)
        for name, module in self.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
        self.engine.install(monkeypatch)
        return self

    def reload_ui(self) -> WebUI:
        """'Reload UI': callbacks are forgotten, all scripts are loaded again, the page is built."""
        self.callbacks.fire("script_unloaded")
        self.callbacks.clear()
        self.entry = load_entry()
        classes = [kind for kind in vars(self.entry).values() if isinstance(kind, type)]
        kinds = [kind for kind in classes if issubclass(kind, SCRIPTS.Script)]
        SCRIPTS.scripts_data[:] = [SimpleNamespace(script_class=kind, path="", module=self.entry) for kind in kinds]
        for is_img2img in (False, True):
            self.runners[is_img2img] = Runner(self, [*kinds, *self.extra_scripts], is_img2img)
        self.callbacks.fire("before_ui")
        return self

    def fresh_state(self) -> None:
        """What a WebUI does between the jobs of its queue."""
        self.state.__init__()

    @contextlib.contextmanager
    def settings(self, **values: Any):
        """Settings for a while."""
        before = dict(self.opts.data)
        self.opts.data.update(values)
        try:
            yield self
        finally:
            self.opts.data = before


class SharedModule(types.ModuleType):
    """`modules.shared`, whose `sd_model` is always the loaded one."""

    @property
    def sd_model(self) -> Any:
        return self.webui.sd_model


class LazyComponents(types.ModuleType):
    """`modules.ui_components`; gradio is imported only by tests that build a page."""

    def __init__(self, name: str):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name != "InputAccordion":
            raise AttributeError(name)
        return input_accordion


@contextlib.contextmanager
def input_accordion(value: bool, label: str = "", elem_id: str | None = None):
    """An accordion with a box in its title; yields the box."""
    gradio = importlib.import_module("gradio")
    box = gradio.Checkbox(value, label=label, visible=False, elem_id=f"{elem_id}-checkbox")
    with gradio.Accordion(label=label, elem_id=elem_id, open=value):
        yield box


def visible_samplers() -> list[SimpleNamespace]:
    """`sd_samplers.visible_samplers`; they too lie in a module that needs this one."""
    return [SimpleNamespace(name=name) for name in importlib.import_module("fakes.sampling").SAMPLERS]


def process_images(p: Any) -> Any:
    """`processing.process_images`, which lies in a module that needs this one."""
    return importlib.import_module("fakes.processing").process_images(p)


COUNTER = itertools.count()


def load_entry() -> types.ModuleType:
    """The extension's entry file, loaded as a WebUI loads it."""
    path = Path(__file__).parents[2] / "scripts" / "layerdiffuse.py"
    spec = importlib.util.spec_from_file_location(f"layerdiffuse_entry_{next(COUNTER)}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
