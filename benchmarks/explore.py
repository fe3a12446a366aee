"""How fast the page over a large run is: its first rows, a filter and a sort, as a user sees them in Chromium.

The run is made of a small one: its rows are drawn at random with new ids until there are enough, so that values,
spectra and sizes are real but repeat.

    python benchmarks/explore.py RUN --rows 1000000
"""

import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from mat2spec.explore.reader import RunReader
from mat2spec.explore.selection import Selection
from mat2spec.explore.spectra import nearest_spectra
from mat2spec.storage.atomic import write_parquet

WINDOWS = {"phdos": (400.0, 500.0), "edos": (-2.0, -0.5)}


def repeat(run: Path, target: Path, rows: int, rows_per_shard: int) -> None:
    """Write a run of so many rows, drawn from another one."""
    predictions = pa.concat_tables(pq.read_table(file) for file in sorted((run / "predictions").glob("*.parquet")))
    random = np.random.default_rng(1)
    (target / "predictions").mkdir(parents=True)
    for start in range(0, rows, rows_per_shard):
        drawn = predictions.take(random.integers(len(predictions), size=min(rows_per_shard, rows - start)))
        ids = [f"{name}-{start + i}" for i, name in enumerate(drawn["material_id"].to_pylist())]
        drawn = drawn.set_column(drawn.column_names.index("material_id"), "material_id", pa.array(ids))
        write_parquet(target / "predictions" / f"part-{start // rows_per_shard:06d}.parquet", drawn)
    shutil.copytree(run / "rejects", target / "rejects")
    record = json.loads((run / "run.json").read_text())
    counts = {"input": rows + record["counts"]["rejects"], "predictions": rows, "rejects": record["counts"]["rejects"]}
    (target / "run.json").write_text(json.dumps(record | {"counts": counts}))


FIRST_ROW = "#table .ag-row[row-index='0']"

HAS_CHANGED = """before => {
    const row = document.querySelector("#table .ag-row[row-index='0']");
    return row?.querySelector(".ag-cell[col-id=material_id]")?.innerText && row.innerText !== before;
}"""


def timed(page: Any, act: Callable[[], Any], before: str = "") -> float:
    """Seconds from an action to other rows in the table."""
    start = time.perf_counter()
    act()
    page.wait_for_function(HAS_CHANGED, arg=before, polling=5)
    return time.perf_counter() - start


def changed(page: Any, act: Callable[[], Any]) -> float:
    """Seconds from a filter to the rows of its answer, once the page is at rest."""
    page.wait_for_load_state("networkidle")
    return timed(page, act, page.locator(FIRST_ROW).inner_text())


def measure(address: str, repeats: int) -> dict[str, list[float]]:
    """Time the page: seconds of each repeat, by what was done."""
    from playwright.sync_api import sync_playwright

    seconds: dict[str, list[float]] = {}
    with sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(repeats):
            context = chromium.new_context(viewport={"width": 1500, "height": 950})
            for name, time_taken in visit(context.new_page(), address):
                seconds.setdefault(name, []).append(time_taken)
            context.close()
    return seconds


def visit(page: Any, address: str) -> Iterator[tuple[str, float]]:
    """Open the page twice, filter twice and sort."""
    page.set_default_timeout(120_000)
    for name in ("open, empty cache", "open"):
        yield name, timed(page, lambda: page.goto(address))
        page.wait_for_load_state("networkidle")
    yield "element", changed(page, page.get_by_text("Fe", exact=True).click)
    sites = int(page.locator(f"{FIRST_ROW} [col-id=nsites]").inner_text())
    limit, value = ("to", sites - 1) if sites > 1 else ("from", sites + 1)  # either leaves out the first row
    yield "sites", changed(page, lambda: page.locator(f"input[placeholder={limit}]").first.fill(str(value)))
    header = page.locator("#table .ag-header").get_by_text("formula_pretty", exact=True)
    yield "sort", changed(page, header.click)


def measure_queries(run: Path, repeats: int) -> dict[str, list[float]]:
    """Time what the server does for the page, without a browser: seconds of each repeat, by what was asked."""
    start = time.perf_counter()
    reader = RunReader(run)
    seconds = {"open the run": [time.perf_counter() - start]}
    columns = [name for name in reader.columns(Selection()) if name != "spectrum"]
    cases = {
        "first rows": (Selection(), []),
        "element": (Selection(elements=("Fe",)), []),
        "element and sites": (Selection(elements=("Fe",), ranges={"nsites": (3, None)}), []),
        "window without states": (Selection(window=WINDOWS[reader.grid.name]), []),
        "sort": (Selection(), [("spread", "asc")]),
    }
    for name, (selection, order) in cases.items():
        for what, ask in (
            ("page", lambda s=selection, o=order: reader.page(s, columns, 0, 100, o)),
            ("count", lambda s=selection: reader.count(s)),
        ):
            seconds[f"{name}: {what}"] = [_seconds(ask) for _ in range(repeats)]
    (first,) = reader.query("SELECT material_id FROM predictions LIMIT 1")["material_id"].to_pylist()
    seconds["nearest spectra"] = [_seconds(lambda: nearest_spectra(reader, first)) for _ in range(repeats)]
    return seconds


def _seconds(act: Callable[[], Any]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


@dataclass
class Settings:
    """What to measure.

    Args:
        run: A small run whose rows are repeated.
        rows: Rows of the large run.
        rows_per_shard: Rows of each of its files.
        repeats: Of each measurement.
        browser: Whether to measure in Chromium too, which must be installed.
    """

    run: Annotated[Path, tyro.conf.Positional]
    rows: int = 1_000_000
    rows_per_shard: int = 1000
    repeats: int = 5
    browser: bool = True


def main(settings: Settings) -> None:
    """Make the run, and print medians and extremes."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        repeat(settings.run, run, settings.rows, settings.rows_per_shard)
        report(f"server, {settings.rows:,} rows", measure_queries(run, settings.repeats))
        if settings.browser:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            command = [
                sys.executable,
                "-c",
                "from mat2spec.cli.main import main; main()",
                "explore",
                str(run),
                "--port",
                str(port),
            ]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
                assert server.stdout
                address = re.search(r"http://\S+", server.stdout.readline())
                assert address
                try:
                    report("browser", measure(address[0], settings.repeats))
                finally:
                    server.terminate()


def report(title: str, seconds: dict[str, list[float]]) -> None:
    """Print a line for each measurement, with the load of the machine."""
    load = psutil.getloadavg()[0] / (psutil.cpu_count() or 1)
    print(f"{title} (load {load:.1f} per core)", flush=True)
    for name, times in seconds.items():
        print(f"  {name:32} {statistics.median(times):6.2f} s   {min(times):.2f} … {max(times):.2f}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings))
