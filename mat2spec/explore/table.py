"""The table of the selected rows, which DuckDB answers page by page, their number, and the files to save."""

import json
from typing import Any
from urllib.parse import urlencode

import dash_ag_grid as dag
import dash_mantine_components as dmc
import pyarrow as pa
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from mat2spec.errors import QueryError
from mat2spec.explore.export import EXPORTS
from mat2spec.explore.filters import RANGES
from mat2spec.explore.reader import RunReader
from mat2spec.explore.selection import Selection

STORES = ("count", "first", "ids")
"""What the browser holds: number of selected rows, ids of the first of them, and ids of those that are drawn."""

HIDDEN = {"spectrum", "vb_mask", "cb_mask"}
"""Columns that are not shown; files have them."""

OPTIONS = {
    "pagination": True,
    "paginationPageSize": 50,
    "paginationPageSizeSelector": [20, 50, 100],
    "cacheBlockSize": 100,
    "maxBlocksInCache": 10,
    "rowSelection": {"mode": "multiRow", "enableClickSelection": "enableSelection", "headerCheckbox": False},
    "rowHeight": 26,
    "theme": {"function": "themeQuartz.withParams({spacing: 5, fontSize: 13, accentColor: '#228be6'})"},
}

_NUMBER = {"function": "params.value == null ? '' : d3.format('.5~g')(params.value)"}


def table(reader: RunReader) -> dag.AgGrid:
    """Make the table, still without rows."""
    return dag.AgGrid(
        id="table",
        rowModelType="infinite",
        columnDefs=_columns(reader, reader.columns(Selection())),
        defaultColDef={
            "sortable": True,
            "resizable": True,
            "filter": False,
            "wrapHeaderText": True,
            "autoHeaderHeight": True,
        },
        getRowId="params.data._row",
        dashGridOptions=OPTIONS,
        style={"height": "100%"},
    )


def save_buttons() -> list[html.A]:
    """Make the links to files of the selection."""
    labels = {"csv": "CSV", "parquet": "Parquet", "cif": "CIF", "sql": "SQL"}
    return [
        html.A(dmc.Button(labels[form], size="compact-xs", variant="default"), id={"export": form}, href="#")
        for form in EXPORTS
    ]


def stores() -> list[dcc.Store]:
    """Make what the browser holds."""
    return [dcc.Store(id=store) for store in STORES]


def connect_table(app: Dash, reader: RunReader) -> None:
    """Fill the table when it is scrolled, sorted or selected anew."""

    @app.callback(Output("table", "columnDefs"), Input("columns", "data"), prevent_initial_call=True)
    def name_columns(columns: dict[str, str]) -> list[dict[str, Any]]:
        return _columns(reader, columns)

    app.clientside_callback(
        ClientsideFunction("page", "reload"),
        Output("table", "id"),
        Input("selection", "data"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("table", "getRowsResponse"),
        Output("first", "data"),
        Output("error", "children", allow_duplicate=True),
        Output("error", "hide", allow_duplicate=True),
        Input("table", "getRowsRequest"),
        State("selection", "data"),
        State("columns", "data"),
        prevent_initial_call=True,
    )
    def read_rows(request: dict[str, Any] | None, selected: Any, columns: Any) -> tuple[Any, ...]:
        if request is None or selected is None:
            return no_update, no_update, no_update, no_update
        start, rows = request["startRow"], request["endRow"] - request["startRow"]
        order = [(key["colId"], key["sort"]) for key in request["sortModel"]]
        names = [name for name in columns if name not in HIDDEN]
        try:
            page = reader.page(Selection(**selected), names, start, rows, order)
        except QueryError as error:
            return {"rowData": [], "rowCount": 0}, [], str(error), False
        total = start + len(page) if len(page) < rows else None
        first = no_update
        if start == 0:
            first = page["material_id"][:20].to_pylist() if "material_id" in names else []
        return {"rowData": _rows(page, start), "rowCount": total}, first, no_update, no_update

    @app.callback(
        Output("count", "data"),
        Output("count-text", "children"),
        Input("first", "data"),  # not of the selection: of many rows, counting would take half of the machine from them
        State("selection", "data"),
        State("statement", "code"),
        State("count", "data"),
        prevent_initial_call=True,
    )
    def count_rows(_: Any, selected: Any, statement: str, counted: dict[str, Any] | None) -> tuple[Any, Any]:
        if counted and counted["statement"] == statement:  # sorted anew
            return no_update, no_update
        try:
            rows = reader.count(Selection(**selected))
        except QueryError:  # which the table shows
            return None, ""
        return {"statement": statement, "rows": rows}, f"{rows:,} {'row' if rows == 1 else 'rows'}"

    app.clientside_callback(
        ClientsideFunction("page", "setCount"),
        Output("count", "id"),
        Input("count", "data"),
        Input("first", "data"),
        State("statement", "code"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("ids", "data"), Input("table", "selectedRows"), Input("first", "data"), prevent_initial_call=True
    )
    def choose(ticked: list[dict[str, Any]] | None, first: list[str] | None) -> dict[str, Any]:
        ids = [row["material_id"] for row in ticked or () if "material_id" in row]
        return {"ticked": bool(ids), "ids": ids or first or []}

    @app.callback(
        Output({"export": ALL}, "href"), Input("selection", "data"), Input("ids", "data"), prevent_initial_call=True
    )
    def link_files(selected: Any, drawn: dict[str, Any] | None) -> list[str]:
        if selected is None:
            return ["#"] * len(EXPORTS)
        if drawn and drawn["ticked"]:
            selected = selected | {"ids": drawn["ids"]}
        words = urlencode({"selection": json.dumps(selected)})
        return [f"/export/{form}?{words}" for form in EXPORTS]


def _columns(reader: RunReader, columns: dict[str, str]) -> list[dict[str, Any]]:
    """Columns for AG Grid: names first, then those that have a filter, then all others."""
    first = [name for name in ("material_id", "formula_pretty", *RANGES[reader.grid.name]) if name in columns]
    names = dict.fromkeys([*first, *columns])
    return [_column(name, columns[name]) for name in names if name not in HIDDEN]


def _column(name: str, kind: str) -> dict[str, Any]:
    """Definition of a column for AG Grid."""
    column = {"field": name, "colId": name, "headerName": name, "width": 118}
    return column | {"valueFormatter": _NUMBER} if kind in ("FLOAT", "DOUBLE") else column


def _rows(page: pa.Table, start: int) -> list[dict[str, Any]]:
    """Rows for AG Grid, with lists as text."""
    return [
        {name: _shown(value) for name, value in row.items()} | {"_row": str(number)}
        for number, row in enumerate(page.to_pylist(), start)
    ]


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value[:20]))
    return value if isinstance(value, str | int | float | bool | None) else str(value)
