"""Look of the page: theme with fonts of the visitor's own system, style sheet, and the small HTML pieces."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

from ..core.bases import BASES
from ..core.errors import LayerDiffuseError

if TYPE_CHECKING:
    from .model import PageModel

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONOSPACE = ["ui-monospace", "Consolas", "monospace"]

OPTION = re.compile(r"(?<!\S)--(?=[a-z])")
CHECKERBOARD_CLASS = "ld-checkerboard"
CSS = """
.gradio-container { max-width: 1320px !important; margin: 0 auto !important; }
#page_title h1 { font-size: 1.5rem; margin: 0.2rem 0 0.1rem; }
#page_title p { margin: 0; color: var(--body-text-color-subdued); }
#layerdiffuse_accordion { gap: 0; background: var(--block-background-fill); overflow: hidden;
  border: 1px solid var(--border-color-primary); border-radius: var(--block-radius); }
#layerdiffuse_accordion .form { border: none; box-shadow: none; background: transparent; gap: var(--spacing-xl); }
#layerdiffuse_accordion .block { border-width: 0; box-shadow: none; padding: 0; background: transparent; }
#layerdiffuse_line_fg_image .block { border: 1px dashed var(--border-color-primary); }
#layerdiffuse_note * { color: var(--body-text-color-subdued); }
#layerdiffuse_advanced { border: 1px solid var(--border-color-primary) !important; border-radius: var(--radius-md);
  padding: var(--spacing-lg) !important; }
#page_gallery { min-height: 420px; }
#page_gallery .grid-wrap { max-height: none !important; overflow: visible; }
#page_gallery .empty { min-height: 400px; }
#page_files .label-clear-button { display: none; }
#page_parameters [data-testid=block-info] { margin-right: 44px; pointer-events: none; }
#layerdiffuse_enabled { padding: var(--block-padding) !important; }
#layerdiffuse_enabled label > span { font-weight: 600; }
#layerdiffuse_body { padding: 0 var(--spacing-xl) var(--spacing-xl); gap: var(--spacing-xl); }
#page_hints, #page_messages, #page_progress { padding: 0 !important; overflow: visible; }
.ld-message * { color: inherit !important; }
.ld-checkerboard .grid-wrap button, .ld-checkerboard .preview .media-button,
.ld-checkerboard .thumbnail-item {
  background: repeating-conic-gradient(#bdbdbd 0 25%, #ececec 0 50%) 0 0 / 24px 24px !important;
}
.ld-checkerboard img { background: transparent !important; }
.ld-message { border-radius: var(--radius-md); padding: 0.55rem 0.8rem; margin: 0 0 0.35rem; line-height: 1.4; }
.ld-error { background: #fdecec; color: #7a1212; border: 1px solid #f2b8b8; }
.ld-hint { background: #fff6e0; color: #5f4300; border: 1px solid #ecd08c; }
.dark .ld-error { background: #421717; color: #ffd4d4; border-color: #7a2c2c; }
.dark .ld-hint { background: #3a2e10; color: #ffe6ac; border-color: #6d571e; }
.ld-progress { height: 1.7rem; border-radius: var(--radius-md); overflow: hidden; position: relative;
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.ld-progress > div { height: 100%; background: var(--color-accent); opacity: 0.35; transition: width 0.2s; }
.ld-progress > span { position: absolute; inset: 0; padding: 0 0.8rem; line-height: 1.6rem; font-size: 0.85rem; }
#page_words .gallery { max-height: 14rem; overflow-y: auto; }
footer { display: none !important; }

/* In the order of the keyboard: ask, choose, try, results. Seen: results beside, on a phone right below the button. */
#page_columns { display: grid !important; align-items: start; gap: var(--layout-gap);
  grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); grid-template-rows: auto auto 1fr;
  grid-template-areas: "ask results" "try results" "choose results"; }
#page_ask { grid-area: ask; }
#page_try { grid-area: try; }
#page_choose { grid-area: choose; }
#page_results { grid-area: results; }

/* Below the picture, not over it. */
#page_gallery .thumbnail-lg { display: flex; flex-direction: column; height: auto; aspect-ratio: auto; }
#page_gallery .thumbnail-lg img { min-height: 0; flex: 1; }
#page_gallery .caption-label { position: static; max-width: none; width: 100%; border-radius: 0; border-width: 1px 0 0;
  text-align: center; background: var(--background-fill-primary); }

@media (max-width: 760px) {
  #page_columns { grid-template-columns: minmax(0, 1fr); grid-template-rows: none;
    grid-template-areas: "ask" "results" "try" "choose"; }
  #layerdiffuse_advanced { border: 1px solid var(--border-color-primary) !important; border-radius: var(--radius-md);
  padding: var(--spacing-lg) !important; }
#page_gallery { min-height: 0; }
  #page_gallery .empty { min-height: 140px; }
}
@media (max-width: 760px), (pointer: coarse) {
  button, a.download-link, input[type=number], input[type=range], input[type=text], input[type=password],
  input[role=combobox],
  label:has(> input[type=checkbox]), label:has(> input[type=radio]) { min-height: 40px !important; }
  button, a.download-link { min-width: 40px !important; }
  label:has(> input[type=checkbox]), a.download-link { display: inline-flex !important; align-items: center; }
  input[type=checkbox], input[type=radio] { width: 22px; height: 22px; }
  input[type=number] { font-size: 16px; }
  input[type=range] { background: transparent !important; }
  .tab-like-container { height: auto !important; }
  .icon-button svg { width: 20px; height: 20px; }
  .thumbnail-item.thumbnail-small { width: 48px !important; height: 48px !important; }
  .label-wrap, #page_files .filename { align-items: center; }
  #page_files .filename { height: 40px; }
}
"""


def theme(gradio: Any) -> Any:
    """A theme that fetches nothing from the web."""
    look = gradio.themes.Default(primary_hue="emerald", neutral_hue="slate", font=FONTS, font_mono=MONOSPACE)
    return look.set(
        body_background_fill="*neutral_50",
        block_title_text_weight="600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
        slider_color="*primary_600",
        checkbox_background_color_selected="*primary_600",
    )


def title_html(model: PageModel) -> str:
    """Headline and one sentence on the loaded model."""
    count = len(model.captions)
    scenes = f" and {len(model.scenes)} scenes" if model.scenes else ""
    painter = (
        f"the demo model, which knows {model.things} things{scenes} by {count} names"
        if count
        else f"a checkpoint of {BASES[model.base].title}"
    )
    return f"<h1>LayerDiffuse</h1><p>Pictures with real transparency from a prompt, painted by {painter}.</p>"


def error_html(error: LayerDiffuseError) -> str:
    """Message of a typed error: what was wrong, what was expected, what to do."""
    # what is an option of the command line is a field here
    texts = (OPTION.sub("", text) for text in (error.got, error.expected, error.what_to_do))
    got, expected, what_to_do = (html.escape(text) for text in texts)
    body = f"<b>Got {got}.</b> Expected: {expected}.<br>What to do: {what_to_do}."
    return f'<div class="ld-message ld-error" role="alert">{body}</div>'


def failure_html(error: BaseException) -> str:
    """Message of an error that nobody foresaw; the log has the rest."""
    body = f"<b>Something went wrong:</b> {html.escape(f'{type(error).__name__}: {error}')}<br>The log says more."
    return f'<div class="ld-message ld-error" role="alert">{body}</div>'


def hints_html(hints: list[str]) -> str:
    """Messages that are no errors, one a line; empty for none."""
    return "".join(f'<div class="ld-message ld-hint" role="status">{html.escape(hint)}</div>' for hint in hints)


def progress_html(fraction: float, text: str) -> str:
    """A bar with a text on it; fraction in [0,1]."""
    percent = round(100 * min(max(fraction, 0.0), 1.0))
    state = f'role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}"'
    label = html.escape(f"{text} · {percent} %" if text else f"{percent} %")
    return f'<div class="ld-progress" {state}><div style="width:{percent}%"></div><span>{label}</span></div>'
