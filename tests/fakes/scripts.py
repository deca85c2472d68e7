"""`modules.scripts`: the base class of scripts, and the runner that calls their hooks."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
from types import SimpleNamespace
from typing import Any

HOOKS = (
    "setup",
    "before_process",
    "process",
    "before_process_batch",
    "after_extra_networks_activate",
    "process_batch",
    "process_before_every_sampling",
    "post_sample",
    "on_mask_blend",
    "postprocess_batch",
    "postprocess_batch_list",
    "postprocess_image",
    "postprocess_maskoverlay",
    "postprocess_image_after_composite",
    "postprocess",
    "before_hr",
)
ALWAYS_VISIBLE = object()


class Script:
    """Base of all scripts; its hooks do nothing."""

    args_from = args_to = None
    alwayson = False
    is_txt2img = is_img2img = False
    tabname = filename = name = section = group = controls = None
    infotext_fields = paste_field_names = None
    on_before_component_elem_id = on_after_component_elem_id = None

    def title(self) -> str:
        raise NotImplementedError

    def ui(self, is_img2img: bool) -> list[Any]:
        return []

    def show(self, is_img2img: bool) -> Any:
        return True


def _nothing(self: Script, *_arguments: Any, **_named: Any) -> None:
    """A hook that a script does not define."""


for _hook in HOOKS:
    setattr(Script, _hook, _nothing)


def _module() -> Any:
    spec = importlib.machinery.ModuleSpec("modules.scripts", None)
    module = importlib.util.module_from_spec(spec)
    module.Script, module.AlwaysVisible, module.scripts_data = Script, ALWAYS_VISIBLE, []
    module.PostSampleArgs = lambda samples: SimpleNamespace(samples=samples)
    return module


SCRIPTS = _module()  # one for the whole session, as the extension's class is made from its `Script`


class ScriptPostprocessing:
    """Base of the scripts of the Extras tab."""

    filename = controls = args_from = args_to = name = group = None
    order = 1000

    def ui(self) -> dict[str, Any]:
        return {}

    def process(self, pp: Any, **values: Any) -> None:
        """Change `pp.image`."""

    def process_firstpass(self, pp: Any, **values: Any) -> None:
        """Before all scripts' `process`."""


def _postprocessing() -> Any:
    spec = importlib.machinery.ModuleSpec("modules.scripts_postprocessing", None)
    module = importlib.util.module_from_spec(spec)
    module.ScriptPostprocessing = ScriptPostprocessing
    return module


SCRIPTS_POSTPROCESSING = _postprocessing()


class Runner:
    """The scripts of a tab: always-on ones, whose exceptions are reported, not raised, and those of the list."""

    def __init__(self, webui: Any, kinds: list[type], is_img2img: bool):
        self.webui, self.scripts, self.called = webui, [], []
        self.selectable_scripts: list[Script] = []
        for kind in kinds:
            script = kind()
            script.is_txt2img, script.is_img2img = not is_img2img, is_img2img
            shown = script.show(is_img2img)
            if shown is ALWAYS_VISIBLE:
                script.alwayson = True
                self.scripts.append(script)
            elif shown:
                self.selectable_scripts.append(script)

    @property
    def alwayson_scripts(self) -> list[Script]:
        """As the WebUI calls them."""
        return self.scripts

    def run(self, p: Any, *arguments: Any) -> Any:
        """The script that the first argument chooses, with its part of the arguments."""
        if not arguments[0]:
            return None
        script = self.selectable_scripts[arguments[0] - 1]
        return script.run(p, *arguments[script.args_from : script.args_to])

    @property
    def ours(self) -> Script:
        """The extension's script."""
        return next(script for script in self.scripts if type(script).__name__ == "LayerDiffuseScript")

    def arguments(self, p: Any, script: Script) -> tuple[Any, ...]:
        """Only the extension's script has arguments."""
        return tuple(p.script_args)[script.args_from : script.args_to] if script is self.ours else ()

    def call(self, hook: str, p: Any, *others: Any, **named: Any) -> None:
        """One hook, by the method of this runner that extensions may have wrapped."""
        own = getattr(self, hook, None) or functools.partial(self.each, hook)
        own(p, *others, **named)

    def postprocess_image_after_composite(self, p: Any, told: Any) -> None:
        """A picture is as it will be saved."""
        self.each("postprocess_image_after_composite", p, told)

    def postprocess(self, p: Any, processed: Any) -> None:
        """All is done."""
        self.each("postprocess", p, processed)

    def each(self, hook: str, p: Any, *others: Any, **named: Any) -> None:
        """One hook of all scripts, in their order."""
        self.called.append(hook)
        for script in self.scripts:
            function = getattr(type(script), hook, _nothing)
            if function is _nothing:
                continue
            try:
                function(script, p, *others, *self.arguments(p, script), **named)
            except Exception as error:  # noqa: BLE001 a WebUI reports whatever it is
                self.webui.report(hook, error)


SCRIPTS.ScriptRunner = Runner
