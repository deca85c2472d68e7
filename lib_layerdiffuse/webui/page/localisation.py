"""The translations of the page: one table of texts, and the files that WebUIs read, made from it.

After an edit of the table: `python -m lib_layerdiffuse.webui.page.localisation`. WebUIs replace a text wherever it
stands on the page alone, their own and other extensions' too: a common word needs a common translation.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

from ..host.modules import option

FOLDER = Path(__file__).parents[3] / "localizations"
TABLE = FOLDER / "texts.tsv"  # a column for each language; the first one is what the page shows without translation

Texts = dict[str, str]


def read_table() -> dict[str, Texts]:
    """By language, translations by English text."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        (_, *languages), *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    columns = zip(*(translations for _, *translations in rows), strict=True)
    english = [row[0] for row in rows]
    return {
        language: dict(zip(english, column, strict=True)) for language, column in zip(languages, columns, strict=True)
    }


def texts_of_page() -> Texts:
    """Translations into the language that the WebUI's page has; none where it is English, or one without a column."""
    return read_table().get(option("localization", "None"), {})


def as_json(texts: Texts) -> str:
    """The content of a language's file."""
    return json.dumps(texts, ensure_ascii=False, indent=2) + "\n"


def write_files() -> None:
    """Make the files of all languages."""
    for language, texts in read_table().items():
        (FOLDER / f"{language}.json").write_text(as_json(texts), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write_files()
