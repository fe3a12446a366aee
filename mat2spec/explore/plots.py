"""The plots of the page: spectra of some materials, and a scatter plot whose box narrows the selection."""

from typing import Any

import dash_mantine_components as dmc
import plotly.graph_objects as go
from dash import Dash, Input, Output, State, ctx, dcc, html, no_update

from mat2spec.errors import QueryError
from mat2spec.explore.figures import COLORS, scatter_figure, spectra_figure
from mat2spec.explore.reader import RunReader
from mat2spec.explore.selection import Selection
from mat2spec.explore.spectra import read_spectra
from mat2spec.storage.tables import quoted_identifier

AXES = {"phdos": ("mean_frequency", "heat_capacity_300K"), "edos": ("band_gap_pred", "dos_sum")}
"""Columns of the scatter plot at first."""

FIRST = 3
"""Spectra that are drawn as long as none is ticked."""

POINTS = 5000
"""Most points of the scatter plot; of more rows a sample is drawn."""

_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "FLOAT", "DOUBLE")


def spectra_panel() -> html.Div:
    """Make the panel of the spectra."""
    title = dmc.Group(
        [dmc.Text("Spectra", fw=600, size="sm"), dmc.Text(id="shown", size="xs", c="dimmed")], px="xs", gap="xs"
    )
    return html.Div([title, _place("spectra")], className="column")


def scatter_panel(reader: RunReader) -> html.Div:
    """Make the panel of the scatter plot."""
    axes = [
        dmc.Select(id=name, value=column, data=[column], size="xs", w=165, searchable=True, allowDeselect=False)
        for name, column in zip(("x", "y"), AXES[reader.grid.name], strict=True)
    ]
    clear = dmc.Button("Clear box", id="clear-box", size="compact-xs", variant="subtle", disabled=True)
    title = dmc.Group([dmc.Text("Scatter", fw=600, size="sm"), *axes, clear], px="xs", gap="xs")
    return html.Div([title, _place("scatter")], className="column")


def _place(name: str) -> html.Div:
    """Where a plot will be: reading plotly.js takes the browser a second, so the first rows are shown before."""
    return html.Div(id=f"{name}-place", className="fill")


def _graph(name: str, figure: go.Figure) -> dcc.Graph:
    config: Any = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "autoScale2d"]}
    return dcc.Graph(id=name, figure=figure, config=config, style={"height": "100%"}, responsive=True)


def connect_plots(app: Dash, reader: RunReader) -> None:
    """Draw the plots, and let a box select rows."""

    @app.callback(
        Output("spectra-place", "children"),
        Output("shown", "children"),
        Input("ids", "data"),
        State("selection", "data"),
        prevent_initial_call=True,
    )
    def draw_spectra(drawn: dict[str, Any], selected: Any) -> tuple[Any, str]:
        ids, ticked = drawn["ids"], drawn["ticked"]
        low, high = Selection(**selected).window
        window = None if low is None or high is None else (low, high)
        try:
            materials = read_spectra(reader, ids[: len(COLORS) if ticked else FIRST])
        except QueryError as error:
            return no_update, str(error)
        hint = f"of at most {len(COLORS)} ticked rows" if ticked else "of the first rows; tick rows to choose"
        return _graph("spectra", spectra_figure(materials, reader.grid, window)), hint if materials else "none"

    @app.callback(Output("x", "data"), Output("y", "data"), Input("columns", "data"))
    def offer_axes(columns: dict[str, str]) -> tuple[list[str], list[str]]:
        numbers = [name for name, kind in columns.items() if kind in _NUMBERS and not name.endswith("_mask")]
        return numbers, numbers

    @app.callback(
        Output("scatter-place", "children"),
        Input("first", "data"),
        Input("x", "value"),
        Input("y", "value"),
        State("selection", "data"),
        State("columns", "data"),
        prevent_initial_call=True,
    )
    def draw_scatter(first: Any, x: str, y: str, selected: Any, columns: dict[str, str]) -> Any:
        if first is None:
            return no_update
        if not {x, y} <= set(columns):
            return dmc.Text("The SQL has no such columns; choose others.", size="sm", p="sm")
        has_names = {"formula_pretty", "material_id"} <= set(columns)
        label = "concat_ws(' · ', formula_pretty, material_id)" if has_names else "''"
        points = f"{quoted_identifier(x)} AS x, {quoted_identifier(y)} AS y, {label} AS label"
        source = Selection(**selected).statement(reader.record)
        sample = f"USING SAMPLE reservoir({POINTS} ROWS) REPEATABLE (1)"
        try:
            rows = reader.query(f"SELECT {points} FROM (\n{source}\n) {sample}")
        except QueryError:  # which the table shows
            return no_update
        return _graph("scatter", scatter_figure(rows, x, y))

    @app.callback(
        Output("box", "data"),
        Output("clear-box", "disabled"),
        Input("scatter", "selectedData"),
        Input("clear-box", "n_clicks"),
        State("x", "value"),
        State("y", "value"),
        prevent_initial_call=True,
    )
    def take_box(chosen: dict[str, Any] | None, _: Any, x: str, y: str) -> tuple[Any, Any]:
        if ctx.triggered_id == "clear-box":
            return None, True
        if not chosen or "range" not in chosen:
            return no_update, no_update
        return {x: sorted(chosen["range"]["x"]), y: sorted(chosen["range"]["y"])}, False
