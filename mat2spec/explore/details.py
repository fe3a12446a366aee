"""One material in detail: its crystal in 3D, and the materials with the most similar spectra."""

import itertools
from typing import Any

import dash_mantine_components as dmc
import numpy as np
from dash import ClientsideFunction, Dash, Input, Output, dcc, html
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from mat2spec.errors import Mat2SpecError, QueryError
from mat2spec.explore.reader import RunReader
from mat2spec.explore.spectra import nearest_spectra
from mat2spec.structure.crystal import Crystal

ON_FACE = 1e-3
"""Fraction of a cell's edge within which an atom is on its face."""

SYMPREC = 0.01
"""[Å] By which positions may differ from symmetry."""


def details_panel() -> dmc.Tabs:
    """Make the panel, still without a material."""
    tabs = [dmc.TabsTab("Structure", value="structure"), dmc.TabsTab("Similar spectra", value="similar")]
    viewer = html.Div([html.Div(id="viewer"), html.Div(id="facts"), dcc.Store(id="crystal")], className="structure")
    return dmc.Tabs(
        [
            dmc.TabsList([*tabs, dmc.Text(id="active", size="sm", fw=600, ml="auto", mr="sm", mt=6)]),
            dmc.TabsPanel(viewer, value="structure"),
            dmc.TabsPanel(dcc.Loading(html.Div(id="neighbors"), delay_show=300), value="similar"),
        ],
        id="details",
        value="structure",
        className="details",
    )


def connect_details(app: Dash, reader: RunReader) -> None:
    """Show the material that was ticked last, else the first row."""

    @app.callback(Output("active", "children"), Input("ids", "data"), prevent_initial_call=True)
    def activate(drawn: dict[str, Any] | None) -> str:
        ids = drawn["ids"] if drawn else []
        return ids[-1 if drawn and drawn["ticked"] else 0] if ids else ""

    @app.callback(
        Output("crystal", "data"), Output("facts", "children"), Input("active", "children"), prevent_initial_call=True
    )
    def read_crystal(material_id: str) -> tuple[Any, Any]:
        if not material_id:
            return None, ""
        try:
            crystal = reader.crystals([material_id]).get(material_id)
        except Mat2SpecError as error:
            return None, str(error)
        if not isinstance(crystal, Crystal):
            return None, str(
                crystal or f"{material_id} is not in the input of the run, so that its structure is unknown"
            )
        return _drawn(crystal).to(fmt="cif"), _facts(crystal)

    app.clientside_callback(
        ClientsideFunction("page", "showCrystal"),
        Output("crystal", "id"),
        Input("crystal", "data"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("neighbors", "children"),
        Input("active", "children"),
        Input("details", "value"),
        prevent_initial_call=True,
    )
    def find_neighbors(material_id: str, tab: str) -> Any:
        if tab != "similar" or not material_id:  # it reads all spectra: only if it is looked at
            return ""
        try:
            rows = nearest_spectra(reader, material_id).to_pylist()
        except QueryError as error:
            return str(error)
        head = ["material", "formula", "1 − cosine", f"Wasserstein ({reader.grid.unit})"]
        body = [
            [row["material_id"], row["formula_pretty"], f"{row['cosine_distance']:.4f}", f"{row['wasserstein']:.4g}"]
            for row in rows
        ]
        return dmc.Table(data={"head": head, "body": body}, striped=True, verticalSpacing=2, fz="xs")


def _drawn(crystal: Crystal) -> Structure:
    """Return the conventional cell, with the atoms on its faces, edges and corners on all of them."""
    cell = SpacegroupAnalyzer(crystal.to_structure(), SYMPREC).get_conventional_standard_structure()
    sites = [
        (site.species, position + shift)
        for site in cell
        for position in [np.where(np.abs(site.frac_coords % 1 - 1) < ON_FACE, 0, site.frac_coords % 1)]
        for shift in itertools.product(*([0, 1] if coordinate < ON_FACE else [0] for coordinate in position))
    ]
    species, positions = zip(*sites, strict=True)
    return Structure(cell.lattice, species, positions)


def _facts(crystal: Crystal) -> list[Any]:
    """Cell, symmetry and density of a crystal."""
    structure = crystal.to_structure()
    lattice = structure.lattice
    symbol, number = structure.get_space_group_info(symprec=SYMPREC)
    lines = {
        "Formula": crystal.formula,
        "Space group": f"{symbol} ({number})",
        "a, b, c (Å)": ", ".join(f"{length:.3f}" for length in lattice.abc),
        "α, β, γ (°)": ", ".join(f"{angle:.1f}" for angle in lattice.angles),
        "Atoms in this cell": str(len(crystal)),
        "Volume (Å³)": f"{lattice.volume:.1f}",
        "Density (g/cm³)": f"{structure.density:.2f}",
    }
    return [html.Div([html.B(name), html.Br(), text], style={"marginBottom": 6}) for name, text in lines.items()]
