"""Texts that users keep beside a WebUI: a style, and lists of words for sd-dynamic-prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

STYLE_NAME, STYLE = "layerdiffuse", "oil painting of {prompt}, dark"
WORDS = {"thing": ("car", "boat", "bicycle"), "weather": ("rain", "snow", "sun")}
# sd-dynamic-prompts registers its settings with the page alone, and fails without them
OFF = ("ignore_whitespace", "write_prompts_to_file", "limit_jinja_prompts", "auto_purge_cache")
OFF += ("wildcard_manager_no_dedupe", "wildcard_manager_no_sort", "wildcard_manager_shuffle")
ITS_SETTINGS = {f"dp_{name}": False for name in OFF} | {
    "dp_write_raw_template": True,
    "dp_parser_variant_start": "{",
    "dp_parser_variant_end": "}",
    "dp_parser_wildcard_wrap": "__",
    "dp_magicprompt_default_model": "",
    "dp_magicprompt_batch_size": 1,
}


def write_texts(data: Path) -> dict[str, Any]:
    """Writes them into the data folder; the settings by which they are found."""
    style = f'name,prompt,negative_prompt\n{STYLE_NAME},"{STYLE}",\n'
    (data / "styles.csv").write_text(style, encoding="utf-8")
    folder = data / "wildcards"
    folder.mkdir()
    for name, words in WORDS.items():
        (folder / f"{name}.txt").write_text("\n".join(words), encoding="utf-8")
    return {"wildcard_dir": str(folder), **ITS_SETTINGS}
