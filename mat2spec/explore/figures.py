"""Interactive figures of the page: spectra, and a scatter plot of two columns."""

from collections.abc import Sequence

import pandas  # noqa: F401 - plotly imports it in the first thread that draws, and others then meet one half of it
import plotly.graph_objects as go
import pyarrow as pa

from mat2spec.dos.grid import SpectrumGrid
from mat2spec.dos.plots import AXIS_LABELS, PREDICTION_UNITS
from mat2spec.explore.spectra import MaterialSpectrum

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
"""Okabe and Ito's colors, which people with any kind of color vision can tell apart; yellow is darkened."""

MOST_SHADED = 3
"""Materials whose gaps are shaded; those of more could not be told apart."""

MARGIN = {"l": 55, "r": 10, "t": 10, "b": 40}


def spectra_figure(
    materials: Sequence[MaterialSpectrum], grid: SpectrumGrid, window: tuple[float, float] | None = None
) -> go.Figure:
    """Draw spectra over each other: predicted with the error to be expected, computed dashed, gaps shaded.

    Args:
        materials: What to draw.
        grid: Axis of the spectra.
        window: Range to shade in gray.
    """
    figure = _figure(AXIS_LABELS[grid.name], PREDICTION_UNITS[grid.name])
    for number, material in enumerate(materials):
        color, label = COLORS[number % len(COLORS)], f"{material.formula} · {material.material_id}"
        if material.spread is not None:
            _add_band(figure, material, grid, color)
        line = {"color": color, "width": 2}
        figure.add_scatter(x=grid.points, y=material.predicted, name=label, line=line, legendgroup=label)
        if material.computed is not None:
            line |= {"dash": "dash"}
            name = f"{material.formula} computed"
            figure.add_scatter(x=grid.points, y=material.computed, name=name, line=line, legendgroup=label)
        for lower, upper in material.gaps if len(materials) <= MOST_SHADED else ():
            figure.add_vrect(lower, upper, fillcolor=color, opacity=0.12, line_width=0)
    if window:
        figure.add_vrect(*window, fillcolor="gray", opacity=0.15, line_width=0)
    figure.update_xaxes(range=[grid.edges[0], grid.edges[-1]])
    figure.update_yaxes(rangemode="tozero")
    return figure


def _add_band(figure: go.Figure, material: MaterialSpectrum, grid: SpectrumGrid, color: str) -> None:
    """Shade one mean absolute error above and below a prediction; densities are not negative."""
    spread = material.spread or 0.0
    above, below = material.predicted + spread, (material.predicted - spread).clip(0)
    figure.add_scatter(
        x=[*grid.points, *grid.points[::-1]],
        y=[*above, *below[::-1]],
        fill="toself",
        fillcolor=color,
        opacity=0.2,
        line_width=0,
        hoverinfo="skip",
        showlegend=False,
        legendgroup=f"{material.formula} · {material.material_id}",
    )


def scatter_figure(points: pa.Table, x: str, y: str) -> go.Figure:
    """Draw two columns against each other.

    Args:
        points: With columns x, y and label.
        x: Name of the horizontal column.
        y: Name of the vertical column.
    """
    figure = _figure(x, y)
    figure.add_scattergl(
        x=points["x"].to_numpy(zero_copy_only=False),
        y=points["y"].to_numpy(zero_copy_only=False),
        customdata=points["label"].to_pylist(),
        hovertemplate="%{customdata}<br>%{x:.5g}, %{y:.5g}<extra></extra>",
        mode="markers",
        marker={"size": 5, "color": COLORS[0], "opacity": 0.45},
    )
    figure.update_layout(dragmode="select", showlegend=False)
    return figure


def _figure(x: str, y: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        template="simple_white",
        margin=MARGIN,
        xaxis_title=x,
        yaxis_title=y,
        font={"family": "Inter, system-ui, sans-serif", "size": 12},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "font_size": 12},
    )
    return figure
