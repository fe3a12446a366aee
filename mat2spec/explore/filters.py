"""The filters at the side of the page, which make a selection."""

from collections.abc import Iterator, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, dcc, html, no_update
from pydantic import ValidationError
from pymatgen.core import Element

from mat2spec.elements import symbols
from mat2spec.errors import QueryError
from mat2spec.explore.reader import RunReader
from mat2spec.explore.selection import Range, Selection
from mat2spec.query.catalog import cookbook, cookbook_sql

RANGES = {
    "phdos": {"nsites": "Sites", "mean_frequency": "Mean frequency (cm⁻¹)", "spread": "Spread"},
    "edos": {
        "nsites": "Sites",
        "band_gap_pred": "Band gap (eV)",
        "vb_gap_width": "Gap below VBM (eV)",
        "spread": "Spread",
    },
}
"""Columns that have a filter, with its label."""

WINDOW_UNITS = {"phdos": "cm⁻¹", "edos": "eV"}

SEEN = {"any": None, "no": False, "yes": True}
"""Choices for materials of the training set."""

_LOW, _HIGH = ({"limit": limit, "column": ALL} for limit in ("low", "high"))


def filters(reader: RunReader) -> dmc.Stack:
    """Make the filters of a run; the browser keeps them over a reload."""
    kept = {"persistence": str(reader.path), "persistence_type": "session"}
    name = reader.grid.name
    ready = [{"value": key, "label": f"@{key}"} for key, query in cookbook().items() if query.applies_to(name)]
    return dmc.Stack(
        [
            dcc.Store(id="selection"),
            dcc.Store(id="columns", data=reader.columns(Selection())),
            dcc.Store(id="box"),
            _section(
                "SQL", dmc.Select(id="ready", data=ready, placeholder="ready queries", size="xs", searchable=True)
            ),
            dmc.Textarea(
                id="text",
                placeholder="A condition (nsites <= 4 AND …) or a whole SELECT",
                autosize=True,
                minRows=2,
                maxRows=10,
                size="xs",
                styles={"input": {"fontFamily": "monospace"}},
                **kept,
            ),
            dmc.Alert(id="error", color="red", hide=True, p="xs"),
            dmc.Group(
                [
                    dmc.Button("Apply", id="apply", size="compact-sm"),
                    dmc.Button("Reset all", id="reset", size="compact-sm", variant="subtle", color="gray"),
                ],
                gap="xs",
            ),
            _section("Elements", _choices("match", ("all", "any", "only", "none"), **kept)),
            dmc.ChipGroup(
                html.Div(list(_periodic_table()), className="periodic-table"),
                id="elements",
                multiple=True,
                value=[],
                **kept,
            ),
            *(
                _limits(label, {"limit": "low", "column": column}, {"limit": "high", "column": column}, **kept)
                for column, label in RANGES[name].items()
            ),
            _limits(f"No states between ({WINDOW_UNITS[name]})", "window-low", "window-high", **kept),
            _section("In the training set", _choices("seen", tuple(SEEN), **kept)),
            dmc.Switch(
                id="computed",
                label="Only materials with a computed spectrum",
                size="xs",
                disabled=not reader.has_computed,
            ),
            _section("SQL of the selection"),
            dmc.CodeHighlight(id="statement", code="", language="sql"),
        ],
        gap=8,
    )


def _section(title: str, *beside: Any) -> dmc.Group:
    return dmc.Group([dmc.Text(title, size="sm", fw=600), *beside], justify="space-between", gap="xs", wrap="nowrap")


def _choices(name: str, choices: Sequence[str], **kept: str) -> dmc.SegmentedControl:
    return dmc.SegmentedControl(id=name, data=list(choices), value=choices[0], size="xs", **kept)


def _limits(label: str, low: Any, high: Any, **kept: str) -> dmc.Group:
    inputs = [
        dmc.NumberInput(id=name, placeholder=word, size="xs", w=80, hideControls=True, debounce=30, value="", **kept)
        for name, word in ((low, "from"), (high, "to"))
    ]
    return _section(label, dmc.Group(inputs, gap=4, wrap="nowrap"))


def _periodic_table() -> Iterator[dmc.Chip]:
    """A chip for each element, placed as in the periodic table, with the f-block below."""
    for symbol in symbols()[1:]:
        element = Element(symbol)
        row, column = element.row, element.group
        if element.is_lanthanoid or element.is_actinoid:
            row, column = row + 3, 3 + element.Z - (57 if element.is_lanthanoid else 89)
        place = {"style": {"gridRow": row, "gridColumn": column}, "title": element.long_name}
        yield dmc.Chip(symbol, value=symbol, size="xs", radius=2, wrapperProps=place)


def connect_filters(app: Dash, reader: RunReader) -> None:
    """Make the selection from the filters, and refuse SQL that cannot be run."""

    @app.callback(
        Output("selection", "data"),
        Output("columns", "data"),
        Output("statement", "code"),
        Output("error", "children"),
        Output("error", "hide"),
        Input("apply", "n_clicks"),
        Input("elements", "value"),
        Input("match", "value"),
        Input(_LOW, "value"),
        Input(_HIGH, "value"),
        Input("window-low", "value"),
        Input("window-high", "value"),
        Input("seen", "value"),
        Input("computed", "checked"),
        Input("box", "data"),
        State("text", "value"),
        State("columns", "data"),
    )
    def select(  # one argument for each filter
        _: Any,
        elements: Any,
        match: Any,
        lows: Any,
        highs: Any,
        low: Any,
        high: Any,
        seen: Any,
        computed: Any,
        box: Any,
        text: Any,
        known: Any,
    ) -> tuple[Any, ...]:
        names = RANGES[reader.grid.name]
        ranges = {name: _range(*limits) for name, *limits in zip(names, lows, highs, strict=True)}
        try:
            selection = Selection(
                text=text or "",
                elements=elements or (),
                match=match,
                ranges={name: limits for name, limits in ranges.items() if limits != (None, None)},
                box=box or {},
                window=_range(low, high),
                seen=SEEN[seen],
                computed=bool(computed),
            )
            statement = selection.statement(reader.record)
            columns = reader.columns(selection)
        except (QueryError, ValidationError) as error:
            return no_update, no_update, no_update, str(error), False
        changed = no_update if columns == known else columns
        return selection.model_dump(mode="json"), changed, statement, "", True

    @app.callback(Output("text", "value"), Input("ready", "value"), prevent_initial_call=True)
    def fill_in(name: str | None) -> Any:
        return cookbook_sql(name, reader.record).rstrip(";") if name else no_update

    @app.callback(
        Output("text", "value", allow_duplicate=True),
        Output("ready", "value"),
        Output("elements", "value"),
        Output("match", "value"),
        Output(_LOW, "value"),
        Output(_HIGH, "value"),
        Output("window-low", "value"),
        Output("window-high", "value"),
        Output("seen", "value"),
        Output("computed", "checked"),
        Output("box", "data", allow_duplicate=True),
        Output("apply", "n_clicks"),
        Input("reset", "n_clicks"),
        State("apply", "n_clicks"),
        prevent_initial_call=True,
    )
    def reset(_: int, applied: int | None) -> tuple[Any, ...]:
        nothing = [""] * len(RANGES[reader.grid.name])
        return "", None, [], "all", nothing, nothing, "", "", "any", False, None, (applied or 0) + 1


def _range(low: int | float | str | None, high: int | float | str | None) -> Range:
    """Limits that were typed; an empty field is no limit."""
    return tuple(None if value in ("", None) else float(value) for value in (low, high))  # type: ignore[return-value]
