"""What was found out, as HTML: a table of runs with the figures of their alpha, and a sentence beneath it.

Each text that stays the same is an element of its own, so that a WebUI can translate it.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from ..core.picture.verdicts import AlphaFigures
from ..diagnosis.findings import Conclusion, Finding, conclude

HEAD = ("run", "alpha", "empty", "half transparent", "opaque")
FIGURES = ("empty", "between", "opaque")


def findings_html(findings: Sequence[Finding]) -> str:
    """The whole of it."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in HEAD)
    rows = "".join(f"<tr>{row(finding)}</tr>" for finding in findings)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="layerdiffuse_findings">{table}{sentence(conclude(findings))}</div>'


def row(finding: Finding) -> str:
    """The cells of a run; figures are the means over its pictures."""
    said = spans(finding.said)
    if not finding.figures:
        return f'<td>{spans((finding.name,))}</td><td colspan="4">{said}</td>'
    shares = "".join(f"<td>{mean(finding.figures, name):.0%}</td>" for name in FIGURES)
    return f"<td>{spans((finding.name,))}</td><td>{said}</td>{shares}"


def mean(figures: Sequence[AlphaFigures], name: str) -> float:
    """Of one figure, in [0,1]."""
    return sum(getattr(one, name) for one in figures) / len(figures)


def sentence(conclusion: Conclusion) -> str:
    """What helps."""
    return f"<p><b>{spans((conclusion.sentence,))}</b> {spans(conclusion.names)}</p>"


def spans(texts: Sequence[str]) -> str:
    """Texts, each an element, with commas."""
    return ", ".join(f"<span>{html.escape(text)}</span>" for text in texts)
