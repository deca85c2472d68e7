"""The folder of the demo model, which ships with the package: where it lies, and what it holds."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import WeightsError

# what such a folder holds, beside layer files
CHECKPOINT_NAME, CONFIG_NAME, TOKENIZER_NAME = "demo.safetensors", "demo.yaml", "tokenizer"
VOCABULARY_NAME = "vocabulary.json"
TOKENIZER_VARIABLE = "LAYERDIFFUSE_DEMO_TOKENIZER"  # by which its yaml finds the tokenizer in a WebUI
CONTROLNET = "demo_control_lines"  # stem of the ControlNet for lines
DEMO_FOLDER = Path(__file__).resolve().parent.parent / "demo_model"


def demo_folder(folder: str | Path | None = None) -> Path:
    """The folder of the demo model; WeightsError when it is not there."""
    chosen = Path(folder) if folder is not None else DEMO_FOLDER
    if not chosen.is_dir():
        raise WeightsError(
            f"no folder {chosen}",
            "the folder of the demo model",
            "install the package again, or name a checkpoint with --checkpoint FILE",
        )
    return chosen
