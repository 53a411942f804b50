"""Results as tables: numpy structured arrays, pandas frames, and HTML for notebooks.

A result that has rows derives from `Tabular` and says its columns; all else follows. Nothing here imports
numpy or pandas before it is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

MOST_ROWS = 20
"""So many rows of a table are shown, and how many more there are."""
MOST_COLUMNS = 24
MOST_CHARACTERS = 160
"""Of one cell; what is cut is not in the HTML at all, so that its size is bounded."""


class Tabular(ABC):
    """A result that is a table.

    >>> import numpy as np
    >>> class Ports(Tabular):
    ...     def columns(self):
    ...         verdicts = np.array(["allow", "deny"], object)
    ...         return {"port": np.array([22, 443], np.uint16), "verdict": verdicts}
    >>> Ports().to_numpy()["verdict"].tolist()
    ['allow', 'deny']
    >>> '<span class="bad">deny</span>' in Ports()._repr_html_()
    True
    """

    __slots__ = ()

    @abstractmethod
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """The columns by name, in order, all with one value for each row.

        Numbers have the narrowest dtype that holds them, text is of dtype object, None where there is none.
        """

    def caption(self) -> str:
        """One line that says what the table is; shown above it."""
        return type(self).__name__

    def to_numpy(self) -> NDArray[np.void]:
        """A structured array with a field for each column and an element for each row."""
        import numpy as np

        columns = self.columns()
        rows = len(next(iter(columns.values()))) if columns else 0
        table = np.empty(rows, np.dtype([(name, column.dtype) for name, column in columns.items()]))
        for name, column in columns.items():
            table[name] = column
        return table

    def to_pandas(self) -> pd.DataFrame:
        """A frame with a column for each column; what has no value is missing.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "pandas is not installed: pip install 'labelgate[pandas]' does it; "
                "to_numpy() needs nothing more",
                name="pandas",
            ) from None
        return pd.DataFrame(dict(self.columns()))

    def _repr_html_(self) -> str:
        columns = dict(self.columns())
        first = {name: column[:MOST_ROWS].tolist() for name, column in columns.items()}
        # Rules are numbered from 0: what stands for no rule in an array is shown as nothing.
        first |= {"rule": [None if rule == -1 else rule for rule in first["rule"]]} if "rule" in first else {}
        rows = zip(*first.values(), strict=True)
        count = len(next(iter(columns.values()))) if columns else 0
        return html_table(self.caption(), list(columns), list(rows), count)


_STYLE = (
    ".labelgate{font-size:13px;line-height:1.45;margin:6px 0 10px;overflow-x:auto}"
    ".labelgate table{border-collapse:collapse;border:0;margin:0;color:inherit;background:none}"
    ".labelgate caption{caption-side:top;text-align:left;padding:0 0 6px;color:inherit;font-weight:600;"
    "white-space:nowrap}"
    ".labelgate th,.labelgate td{padding:3px 14px 3px 0;text-align:left;vertical-align:top;border:0;"
    "border-bottom:1px solid rgba(128,128,128,.35);background:none;color:inherit;max-width:none;"
    "white-space:nowrap}"
    ".labelgate thead th{border-bottom:2px solid rgba(128,128,128,.6);font-weight:600;white-space:nowrap}"
    ".labelgate .number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}"
    ".labelgate .none{opacity:.55}"
    ".labelgate .more{opacity:.75;padding:6px 0 0}"
    ".labelgate .good,.labelgate .bad,.labelgate .other{border-radius:3px;padding:1px 6px;color:#fff;"
    "white-space:nowrap}"
    ".labelgate .good{background:#1a7f37}.labelgate .bad{background:#c62828}"
    ".labelgate .other{background:#57606a}"
)
"""Everything but the coloured words takes the colours of the page, light or dark."""

_TONES = {
    **dict.fromkeys(("allow", "allow-notrack", "allow-skip-hep", "delivered", "yes", "all", "pass"), "good"),
    **dict.fromkeys(("deny", "denied", "no", "fail"), "bad"),
    **dict.fromkeys(("continue", "Pass", "Log", "error"), "other"),
    "Allow": "good",
    "Deny": "bad",
}
"""Words of verdicts and actions, which are shown on a colour."""


def html_table(
    caption: str, names: Sequence[str], rows: Iterable[Sequence[object]], count: int | None = None
) -> str:
    """A table of text, numbers, flags and None, escaped, of bounded size, readable on light and dark pages.

    `rows` may be only the first of `count`; at most `MOST_ROWS` are shown.
    """
    rows = list(rows)
    count = len(rows) if count is None else count
    shown = [row[:MOST_COLUMNS] for row in rows[:MOST_ROWS]]
    is_number = [
        all(_is_number(row[at]) or row[at] is None for row in shown)
        and any(_is_number(row[at]) for row in shown)
        for at in range(min(len(names), MOST_COLUMNS))
    ]
    head = "".join(
        f'<th scope="col"{_class("number" if right else "")}>{_text(name)}</th>'
        for name, right in zip(names, is_number, strict=False)
    )
    body = "".join(
        "<tr>" + "".join(_cell(value, right) for value, right in zip(row, is_number, strict=False)) + "</tr>"
        for row in shown
    )
    return (
        f'<div class="labelgate"><style>{_STYLE}</style><table><caption>{_text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"{_more(count - len(shown), len(names) - MOST_COLUMNS)}</div>"
    )


def _more(rows: int, columns: int) -> str:
    """What is not shown."""
    parts = [f"{rows:,} more rows"] if rows > 0 else []
    parts += [f"{columns} more columns"] if columns > 0 else []
    return f'<div class="more">… {" and ".join(parts)}</div>' if parts else ""


def _cell(value: object, right: bool) -> str:
    if value is None:
        return f"<td{_class('number none' if right else 'none')}>-</td>"
    if _is_number(value):
        return f"<td{_class('number' if right else '')}>{_text(format(value, ','))}</td>"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    tone = _TONES.get(text)
    return f'<td><span class="{tone}">{_text(text)}</span></td>' if tone else f"<td>{_text(text)}</td>"


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: str) -> str:
    """Escaped, and cut where it is long; half of a surrogate pair cannot be shown."""
    value = value.encode("utf-8", "backslashreplace").decode()
    return escape(value if len(value) <= MOST_CHARACTERS else value[: MOST_CHARACTERS - 1] + "…")
