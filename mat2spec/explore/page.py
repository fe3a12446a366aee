"""The page: its parts in their places."""

import dash_mantine_components as dmc
from dash import html

from mat2spec.explore.details import details_panel
from mat2spec.explore.filters import filters
from mat2spec.explore.plots import scatter_panel, spectra_panel
from mat2spec.explore.reader import RunReader
from mat2spec.explore.records import lineage_panel, rejects_panel
from mat2spec.explore.table import save_buttons, stores, table

UNFINISHED = "unfinished: rows are still being added, reload to see them"


def page(reader: RunReader) -> dmc.MantineProvider:
    """Make the page of a run as it is now."""
    reader.refresh()
    shell = dmc.AppShell(
        [
            dmc.AppShellHeader(_header(reader), px="md"),
            dmc.AppShellNavbar(dmc.ScrollArea(filters(reader), type="auto", p="sm")),
            dmc.AppShellMain(_tabs(reader)),
        ],
        header={"height": 48},
        navbar={"width": 380, "breakpoint": 0},
        padding="sm",
    )
    return dmc.MantineProvider([*stores(), shell])


def _header(reader: RunReader) -> dmc.Group:
    kind = "electronic" if reader.grid.per_cell else "phonon"
    status, color = ("finished", "green") if reader.is_finished else (UNFINISHED, "orange")
    return dmc.Group(
        [
            dmc.Text("mat2spec", fw=800, c="blue", size="lg"),
            dmc.Text(reader.path.name, fw=600, id="run-name"),
            dmc.Badge(f"{kind} spectra", variant="light", tt="none"),
            dmc.Badge(status, variant="light", color=color, tt="none", id="status"),
            dmc.Text(id="count-text", fw=600, ml="auto"),
            dmc.Text("save as", size="sm", c="dimmed"),
            *save_buttons(),
        ],
        h="100%",
        gap="xs",
        wrap="nowrap",
    )


def _tabs(reader: RunReader) -> dmc.Tabs:
    materials = html.Div(
        [
            html.Div(part, className="panel")
            for part in (table(reader), spectra_panel(), scatter_panel(reader), details_panel())
        ],
        className="materials",
    )
    tabs = {
        "materials": ("Materials", materials),
        "rejects": (f"Rejects ({reader.reject_count():,})", rejects_panel()),
        "run": ("Run", lineage_panel(reader.record)),
    }
    return dmc.Tabs(
        [
            dmc.TabsList([dmc.TabsTab(title, value=name) for name, (title, _) in tabs.items()]),
            *(dmc.TabsPanel(panel, value=name) for name, (_, panel) in tabs.items()),
        ],
        id="tabs",
        value="materials",
    )
