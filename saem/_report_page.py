"""Pieces of an HTML page: escaped text, tables, figures, style."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["code", "facts", "figure", "frame_table", "number", "page", "section", "table"]

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f5f7; color: #1d2530;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 2rem 2.2rem 3rem; background: #fff; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .2rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .7rem; padding-bottom: .25rem;
  border-bottom: 1px solid #d9dee5; }
h3 { font-size: 1rem; margin: 1.3rem 0 .4rem; }
p { margin: .5rem 0; }
.lead { color: #55606e; margin: 0 0 1.2rem; }
.note { padding: .7rem 1rem; border-left: 4px solid; margin: 1rem 0; }
.note.good { background: #eef7f1; border-color: #2b8a57; }
.note.bad { background: #fdf3e4; border-color: #c77700; }
.note ul { margin: .3rem 0 0; padding-left: 1.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .4rem 0; font-size: .92rem; }
th, td { padding: .28rem .8rem; text-align: left; vertical-align: top; }
th { font-weight: 600; color: #3b4654; border-bottom: 2px solid #c5ccd6; white-space: nowrap; }
td { border-bottom: 1px solid #eceff3; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tbody tr:hover { background: #f7f9fb; }
table.facts th { border: 0; border-bottom: 1px solid #eceff3; font-weight: 400; color: #55606e;
  padding-left: 0; }
figure { margin: 1.2rem 0 1.6rem; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: #55606e; font-size: .9rem; margin-top: .4rem; }
pre { background: #f6f8fa; border: 1px solid #e2e6eb; border-radius: 4px; padding: .8rem 1rem;
  overflow-x: auto; font: 13px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.small { color: #55606e; font-size: .9rem; }
@media print { body { background: #fff; font-size: 11pt; }
  main { max-width: none; padding: 0; }
  figure, tr, .note { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  pre { white-space: pre-wrap; } }
"""


def number(value: Any, digits: int = 4) -> str:
    """Text of a number with so many significant digits; a dash where there is none.

    Parameters
    ----------
    value : float or other
        Anything else is escaped as it is.
    digits : int

    Returns
    -------
    str
    """
    if value is None:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(value)
    if isinstance(value, float | np.floating):
        value = float(value)
        if not np.isfinite(value):
            return "–" if np.isnan(value) else escape(str(value))
        # All digits before the point, and so many after it as are significant.
        before = 1 if value == 0 else int(np.floor(np.log10(abs(value)))) + 1
        if not -3 < before <= 7:
            return f"{value:.{digits - 1}e}".replace("-", "−")
        return f"{value:.{max(0, digits - before)}f}".replace("-", "−")
    return escape(str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[Any]],
    formats: Mapping[str, Callable[[Any], str]] | None = None,
) -> str:
    """Table with a head; columns of numbers stand to the right.

    Parameters
    ----------
    head : sequence of str
    rows : iterable of sequence
        Text is escaped; numbers are rounded.
    formats : mapping of str to callable, optional
        Other ways than `number` to write the numbers of a column, by its head.

    Returns
    -------
    str
    """
    kept = [list(row) for row in rows]
    right = [
        any(map(_is_number, column)) and all(_is_number(v) or v in (None, "") for v in column)
        for column in ([row[j] for row in kept] for j in range(len(head)))
    ]
    kinds = [' class="n"' if r else "" for r in right]
    lines = ['<div class="scroll"><table><thead><tr>']
    lines += [f"<th{k}>{escape(str(h))}</th>" for h, k in zip(head, kinds, strict=True)]
    lines += ["</tr></thead><tbody>"]
    ways = [(formats or {}).get(h, number) for h in head]
    for row in kept:
        cells = (f"<td{k}>{way(v)}</td>" for v, k, way in zip(row, kinds, ways, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def frame_table(
    frame: pd.DataFrame, formats: Mapping[str, Callable[[Any], str]] | None = None
) -> str:
    """Table of a data frame, its index first.

    Parameters
    ----------
    frame : pandas.DataFrame
    formats : mapping of str to callable, optional
        As for `table`.

    Returns
    -------
    str
    """
    head = [str(frame.index.name or ""), *map(str, frame.columns)]
    return table(head, ([_plain(v) for v in row] for row in frame.itertuples()), formats)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def facts(items: Iterable[tuple[str, Any]]) -> str:
    """Table of names and values, without a head.

    Parameters
    ----------
    items : iterable of (str, object)

    Returns
    -------
    str
    """
    rows = "\n".join(
        f"<tr><th>{escape(name)}</th><td>{number(value)}</td></tr>" for name, value in items
    )
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def figure(png: bytes, caption: str) -> str:
    """Figure with its picture inside the page.

    Parameters
    ----------
    png : bytes
    caption : str

    Returns
    -------
    str
    """
    data = base64.b64encode(png).decode("ascii")
    text = escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def code(text: str) -> str:
    """Block of program text.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
    """
    return f"<pre><code>{escape(text.rstrip())}</code></pre>"


def section(title: str, *parts: str) -> str:
    """Section with a heading; nothing if it has no parts.

    Parameters
    ----------
    title : str
    *parts : str
        HTML.

    Returns
    -------
    str
    """
    body = "\n".join(part for part in parts if part)
    return f"<section><h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def page(title: str, parts: Iterable[str], meta: Mapping[str, str]) -> str:
    """Complete page that needs nothing beside it.

    Parameters
    ----------
    title : str
    parts : iterable of str
        HTML.
    meta : mapping of str to str
        Entries of the head.

    Returns
    -------
    str
    """
    metas = "\n".join(
        f'<meta name="{escape(name)}" content="{escape(text)}">' for name, text in meta.items()
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{metas}\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )
