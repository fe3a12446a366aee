"""The other tabs of the page: rejects by reason, and the record of the run."""

from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
import yaml
from dash import Dash, Input, Output, html

from mat2spec.errors import QueryError
from mat2spec.explore.reader import RunReader
from mat2spec.query.catalog import cookbook_sql, quote_text
from mat2spec.storage.run_directory import REJECTS

ROWS = 500
"""Most rejects listed of one reason."""


def rejects_panel() -> html.Div:
    """Make the tables of rejects, still empty."""
    plain = {"defaultColDef": {"resizable": True, "sortable": True, "tooltipValueGetter": {"function": "params.value"}}}
    one = {"rowSelection": {"mode": "singleRow", "enableClickSelection": True, "checkboxes": False}}
    return html.Div(
        [
            dmc.Text("Reasons; click one to see its rows", size="sm", fw=600),
            dag.AgGrid(id="reasons", columnDefs=[], rowData=[], dashGridOptions=one, style={"height": "100%"}, **plain),
            dmc.Text(id="reject-title", size="sm", fw=600),
            dag.AgGrid(id="reject-rows", columnDefs=[], rowData=[], style={"height": "100%"}, **plain),
        ],
        className="rejects",
    )


def connect_rejects(app: Dash, reader: RunReader) -> None:
    """Read the reasons when the tab is opened, and the rows of a reason when it is clicked."""

    @app.callback(
        Output("reasons", "rowData"), Output("reasons", "columnDefs"), Input("tabs", "value"), prevent_initial_call=True
    )
    def read_reasons(tab: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        if tab != "rejects":
            return [], []
        sql = cookbook_sql("reject_reasons", reader.record).rstrip(";")
        return _table(reader, sql)

    @app.callback(
        Output("reject-rows", "rowData"),
        Output("reject-rows", "columnDefs"),
        Output("reject-title", "children"),
        Input("reasons", "selectedRows"),
        prevent_initial_call=True,
    )
    def read_rejects(chosen: list[dict[str, Any]] | None) -> tuple[Any, ...]:
        if not chosen:
            return [], [], ""
        stage, kind = (quote_text(chosen[0][name]) for name in ("stage", "error_type"))
        rows, columns = _table(
            reader, f"SELECT * FROM {REJECTS} WHERE stage = {stage} AND error_type = {kind} LIMIT {ROWS}"
        )
        return rows, columns, f"Rows of {chosen[0]['error_type']} in stage {chosen[0]['stage']}, at most {ROWS}"


def _table(reader: RunReader, sql: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows and columns for AG Grid; the text of an error as its only row."""
    try:
        rows = reader.query(sql)
    except QueryError as error:
        return [{"error": str(error)}], [{"field": "error"}]
    wide = {"error", "rule", "source"}
    return rows.to_pylist(), [
        {"field": name, "headerName": name, "flex": 4 if name in wide else 1} for name in rows.column_names
    ]


def lineage_panel(record: dict[str, Any]) -> dmc.SimpleGrid:
    """Show what made a run: its configuration, and all else of its record."""
    grid = record["grid"]
    short = {
        "name": grid["name"],
        "unit": grid["unit"],
        "bins": len(grid["centers"]),
        "edges": [grid["edges"][0], grid["edges"][-1]],
    }
    made_by = {name: part for name, part in record.items() if name != "config"} | {"grid": short}
    parts = (("Configuration", record.get("config", {})), ("Checkpoint, input, counts, times and versions", made_by))
    return dmc.SimpleGrid(
        [
            dmc.Stack([dmc.Text(title, fw=600, size="sm"), dmc.CodeHighlight(code=_yaml(part), language="yaml")], gap=4)
            for title, part in parts
        ],
        cols=2,
        pt="sm",
    )


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
