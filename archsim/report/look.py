"""The look that the plotly figures of all pages share, and how pages are put together."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.report import style

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from jinja2 import Template

_FONT = 'Inter, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif'


def look(figure: go.Figure, *, height: int, bottom: int) -> None:
    """Give a figure the look of all pages; `height` and `bottom` (its lower margin) in pixels."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 62, "r": 24, "t": 34, "b": bottom},
        font={"family": _FONT, "size": 13, "color": style.INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"font_family": _FONT},
    )
    axis = {"gridcolor": style.GRID, "linecolor": style.MUTED, "zeroline": False}
    figure.update_xaxes(**axis, title_font_size=13, title_standoff=12, ticks="outside", tickcolor=style.GRID)
    figure.update_yaxes(**axis, title_font_size=13, title_standoff=12)


def note(figure: go.Figure, x: float, y: float | str, text: str, **more: Any) -> None:
    """A text in a figure, without an arrow; `more` as plotly's annotations take it."""
    given: dict[str, Any] = {"showarrow": False, "font_size": 12, "font_color": style.INK, "yanchor": "middle"}
    figure.add_annotation(x=x, y=y, text=text, **(given | more))


@cache
def template(name: str) -> Template:
    """A page's template, of the folder templates/."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def embed(figure: go.Figure | None, name: str) -> str:
    """The figure as a fragment that uses the page's one copy of plotly.js; "" for no figure."""
    if figure is None:
        return ""
    identity = "".join(letter if letter.isalnum() else "-" for letter in name)
    fragment: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"figure-{identity}",
        config={"displaylogo": False, "responsive": True, "displayModeBar": False},
    )
    return fragment
