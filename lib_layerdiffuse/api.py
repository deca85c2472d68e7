"""The Python API: `load` a model once, `generate` pictures; the same names as the command line.

from lib_layerdiffuse.api import generate
for picture in generate("a red apple", count=4, seed=1):
    picture.image.save(f"apple-{picture.seed}.png")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from .core.errors import InputError, MissingExtraError
from .pictures import Picture, Pictures, Watchers
from .settings import GenerateSettings, ModelSettings

if TYPE_CHECKING:
    from .hosts.diffusers_host import DiffusersHost

__all__ = ["GenerateSettings", "ModelSettings", "Picture", "Pictures", "generate", "load", "words"]

EXTRA = 'pip install "sd-webui-layerdiffuse[standalone]"'
STANDALONE_MODULES = ("torch", "diffusers", "transformers", "huggingface_hub", "tqdm")


def load(model: ModelSettings | None = None, **choices: Any) -> DiffusersHost:
    """A loaded model for `generate(..., pipeline=...)`; `choices` are fields of ModelSettings."""
    require_standalone()
    from .hosts.loading import load_host

    return load_host(_chosen(model or ModelSettings(), choices))


def generate(
    prompt: str | Sequence[str] | GenerateSettings,
    *,
    pipeline: DiffusersHost | None = None,
    model: ModelSettings | None = None,
    progress: Callable[[float, str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_picture: Callable[[Picture], object] | None = None,
    **choices: Any,
) -> Pictures:
    """Pictures for a prompt, several prompts or ready settings; `choices` are fields of GenerateSettings.

    `progress(fraction in [0,1], text)` is called after every step, `on_picture` with each picture that is done; when
    `should_stop()` turns true, the finished pictures are returned and `stopped` is set.
    """
    settings = prompt if isinstance(prompt, GenerateSettings) else GenerateSettings(prompt)
    settings, notes = _chosen(settings, choices).validated()
    watchers = Watchers(progress, should_stop, on_picture)
    host = pipeline if pipeline is not None else _load_for(settings, model or ModelSettings(), watchers)
    pictures = host.run(settings, watchers)
    pictures.notes[:0] = notes
    return pictures


def _load_for(settings: GenerateSettings, model: ModelSettings, watchers: Watchers) -> DiffusersHost:
    """The model, after checks that its file's header allows: the wrong base is told in a second, not in a minute."""
    require_standalone()
    from .hosts.loading import base_of, load_host
    from .hosts.run_plan import checked_method

    watchers.report(0.0, "loading the model")
    checked_method(settings, base_of(model))
    return load_host(model)


def words(model: ModelSettings | None = None) -> dict[str, list[str]]:
    """The words that the demo model was trained on, by group."""
    from .hosts.vocabulary import read_vocabulary

    return read_vocabulary((model or ModelSettings()).demo)


def require_standalone() -> None:
    """MissingExtraError with the line to type when a module of the standalone extra is not installed."""
    from importlib.util import find_spec

    missing = [name for name in STANDALONE_MODULES if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"no module {', '.join(missing)}", "the standalone extra", EXTRA)


def _chosen(settings: Any, choices: dict[str, Any]) -> Any:
    known = [field.name for field in fields(settings)]
    unknown = [name for name in choices if name not in known]
    if unknown:
        raise InputError(f"setting {', '.join(unknown)}", f"one of {', '.join(known)}", "correct the name")
    return replace(settings, **choices)
