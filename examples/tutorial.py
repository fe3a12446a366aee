"""The tutorial, a marimo notebook: `marimo edit examples/tutorial.py`, or `marimo run` to look at it only."""

import marimo

app = marimo.App(width="medium", app_title="mat2spec: a tutorial")


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    From a CIF to a spectrum, from a thousand structures to a shortlist, and from a hundred labels of your own to a
    network: a few minutes on two cores, without a GPU. Everything is written below `runs/tutorial`.
    """)
    return


@app.cell
def _():
    import os
    import shlex
    import subprocess
    import sys
    from pathlib import Path

    import duckdb
    import marimo as mo
    import pyarrow as pa
    import pyarrow.parquet as pq

    import mat2spec
    from mat2spec.dos.figures import PAGE_WIDTH, styled
    from mat2spec.dos.plots import plot_spectrum

    bundled = Path(mat2spec.__file__).with_name("data") / "bundled"
    structures = int(mo.cli_args().get("structures") or 1000)  # to screen; -- --structures 200 takes fewer
    epochs = int(mo.cli_args().get("epochs") or 40)
    folder = Path(mo.cli_args().get("folder") or "runs/tutorial").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["MAT2SPEC_HOME"] = str(folder)  # where relative paths start
    return (
        PAGE_WIDTH,
        bundled,
        duckdb,
        epochs,
        folder,
        mat2spec,
        mo,
        os,
        pa,
        plot_spectrum,
        pq,
        shlex,
        structures,
        styled,
        subprocess,
        sys,
        Path,
    )


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## From a CIF to a density of states

    Any structure file will do; this is silicon. `phdos` predicts phonons, `edos` electrons.
    """)
    return


@app.cell
def _(folder):
    cif = folder / "Si.cif"
    _ = cif.write_text("""
    data_silicon
    _space_group_name_H-M_alt 'F d -3 m:1'
    _space_group_IT_number 227
    _cell_length_a 5.43
    _cell_length_b 5.43
    _cell_length_c 5.43
    _cell_angle_alpha 90
    _cell_angle_beta 90
    _cell_angle_gamma 90
    loop_
    _atom_site_label
    _atom_site_type_symbol
    _atom_site_fract_x
    _atom_site_fract_y
    _atom_site_fract_z
    Si1 Si 0 0 0
    """)
    return (cif,)


@app.cell
def _(cif, mat2spec):
    model = mat2spec.load("phdos")
    silicon = model.predict(cif)
    silicon.plot()
    return model, silicon


@app.cell(hide_code=True)
def _(mo, silicon):
    mo.md(rf"""
    The expected mean absolute error of this spectrum is {silicon.spread:.1e} states per cm⁻¹ per atom. Numbers that
    follow from it are in `silicon.row`: the mean frequency is {silicon.row["mean_frequency"]:.0f} cm⁻¹, the heat
    capacity at 300 K {silicon.row["heat_capacity_300K"]:.1f} J/K per mole of atoms. Was silicon in the training set?
    **{silicon.row["seen_in_training"]}**: it would be recognized by its `material_id`, which a CIF of your own lacks.
    """)
    return


@app.cell(hide_code=True)
def _(mo, structures):
    mo.md(rf"""
    ## Screen {structures:,} structures

    A screening reads a materials table, or structure files (`--input my_cifs/`). Here it is a part of the bundled
    structures of the Materials Project, one of every few.
    """)
    return


@app.cell
def _(bundled, folder, pq, structures):
    table = pq.read_table(bundled / "mp_structures.parquet")
    every = len(table) // structures
    pq.write_table(table.take(list(range(0, every * structures, every))), folder / "structures.parquet")
    return


@app.cell
def _(Path, os, shlex, subprocess, sys):
    def run(command: str) -> str:
        """Run a command as a terminal does, and return the end of what it prints."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(shlex.split(command), env={**os.environ, "PATH": path}, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return "\n".join(done.stdout.splitlines()[-14:])

    return (run,)


@app.cell
def _(run):
    report = run("mat2spec screen --input structures.parquet --checkpoint phdos --output screened")
    print(report)
    return (report,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Every structure is now a row of `predictions` or, with the reason, of `rejects`. If you stop the command and run it
    again, it computes what is missing.

    ## Three questions in SQL

    The run has a DuckDB catalog, with views of its files and macros for spectra.
    """)
    return


@app.cell
def _(duckdb, folder, report):
    _ = report  # the screening comes first
    catalog = duckdb.connect(folder / "screened/catalog.duckdb", read_only=True)
    _ = catalog.execute(f"SET file_search_path = '{folder / 'screened'}'")
    return (catalog,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Which crystals vibrate fastest, among those that the networks did not see and whose elements they know?
    """)
    return


@app.cell
def _(catalog, mo):
    stiff = mo.sql(
        f"""
        SELECT material_id, formula_pretty, round(mean_frequency) AS "mean frequency (cm⁻¹)", spread
        FROM predictions
        WHERE NOT seen_in_training AND len(unseen_elements) = 0 AND NOT exceeds_grid
        ORDER BY mean_frequency DESC LIMIT 4
        """,
        engine=catalog,
    )
    return (stiff,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    Which have no vibrations in a window of 100 cm⁻¹ but many above it, so that one phonon cannot decay into two?
    """)
    return


@app.cell
def _(catalog, mo):
    gapped = mo.sql(
        f"""
        SELECT material_id, formula_pretty, round(dos_integral(spectrum, 400, 1000), 2) AS "states above"
        FROM predictions
        WHERE dos_integral(spectrum, 300, 400) < 0.03 AND dos_integral(spectrum, 400, 1000) > 0.3
              AND NOT exceeds_grid AND len(unseen_elements) = 0
        ORDER BY "states above" DESC LIMIT 4
        """,
        engine=catalog,
    )
    return (gapped,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    And why were structures rejected?
    """)
    return


@app.cell
def _(catalog, mo):
    _ = mo.sql(
        f"""
        SELECT stage, error_type, count(*) AS structures, any_value(error) AS example
        FROM rejects GROUP BY ALL ORDER BY structures DESC
        """,
        engine=catalog,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Look at the spectra

    The four fastest crystals above, and below them the four with a gap from 300 to 400 cm⁻¹.
    """)
    return


@app.cell
def _(PAGE_WIDTH, catalog, gapped, mat2spec, plot_spectrum, stiff, styled):
    from matplotlib.figure import Figure

    spectra = dict(catalog.sql("SELECT material_id, spectrum FROM predictions").fetchall())
    with styled():
        figure = Figure(figsize=(PAGE_WIDTH, 4))
        panels = figure.subplots(2, 4)
        for _row, _answer, _shaded in ((0, stiff, []), (1, gapped, [(300, 400)])):
            for _axes, _id, _formula in zip(panels[_row], _answer.material_id, _answer.formula_pretty, strict=False):
                plot_spectrum(spectra[_id], mat2spec.PHDOS_GRID, _formula, _shaded, _axes)
                _axes.set(xlabel="", ylabel="")
        figure.supxlabel("frequency (cm⁻¹)")
        figure.supylabel("states per cm⁻¹ per atom")
    figure
    return (spectra,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    ## Train on a hundred labels of your own

    Labels are a materials table with one more column, the spectra on the grid. Let these be yours: 130 ternary oxides
    of the bundled DFPT spectra. `ingest split` divides them by chemical system.
    """)
    return


@app.cell
def _(bundled, folder, pa, pq):
    _labels = pq.read_table(bundled / "phdos_petretto.parquet").drop_columns(["split", "row"])
    _oxides = [len(set(numbers)) == 3 and 8 in numbers for numbers in _labels["atomic_numbers"].to_pylist()]
    _mine = _labels.filter(pa.array(_oxides)).slice(0, 130)
    pq.write_table(_mine, folder / "my-labels.parquet")
    labels = len(_mine)
    return (labels,)


@app.cell
def _(folder, labels, run):
    (folder / "my-split.parquet").unlink(missing_ok=True)  # of an earlier run of this notebook: no file is overwritten
    split = run("mat2spec ingest split my-labels.parquet --output my-split.parquet") if labels else ""
    print(split)
    return (split,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    A training is a YAML file; its name is the name of the run. This is the additive network, made smaller.
    """)
    return


@app.cell
def _(epochs, folder):
    config = folder / "my-network.yaml"
    _ = config.write_text(f"""
    data:
      table: my-split.parquet
    normalization: max
    loss: mae
    model:
      architecture: additive
      width: 64
      layers: 2
      head: 128
    training:
      epochs: {epochs}
      batch_size: 16
      learning_rate: 4.0e-3
      schedule: one-cycle
      clip_gradient: 1.0
      averaging: 0.99
    register_as: my-network
    """)
    return (config,)


@app.cell
def _(config, run, split):
    training = run(f"mat2spec train {config.name}") if split else ""
    print(training)
    return (training,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    `register_as` put the network into MLflow's registry (`make ui` shows curves and figures), from where every command
    and `mat2spec.load` take it. How good is it, on oxides that it did not see?
    """)
    return


@app.cell
def _(run, training):
    scores = (
        run("mat2spec evaluate runs/my-network/checkpoint --split test --output evaluation.json") if training else ""
    )
    print(scores)
    return (scores,)


@app.cell
def _(folder, mo, scores):
    mo.image(folder / "evaluation-spectra.png") if scores else None
    return


@app.cell
def _(cif, mat2spec, training):
    mine = mat2spec.load("models:/my-network/1") if training else None
    mine.predict(cif).plot()
    return (mine,)


@app.cell(hide_code=True)
def _(mo):
    mo.md(r"""
    A hundred labels teach less than the 1,192 of the benchmark and the thousands of phonondb: compare the scores with
    those of `phdos`. Which labels are worth computing next, `mat2spec propose` says; `mat2spec verify` computes them.
    """)
    return


if __name__ == "__main__":
    app.run()
