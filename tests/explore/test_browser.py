"""The page in a real browser: filter, select, see spectra and structure, save, reload, and survive wrong SQL."""

import re
import shutil
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from mat2spec.explore.reader import RunReader
from mat2spec.explore.selection import Selection

playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's Chromium: apt-get install chromium")

PATIENCE = 60_000
"""[ms] For what the page does; each step takes a second where nothing else runs."""

SOFTWARE_GL = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
"""Chromium in a container without a GPU."""


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_GL)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(serve, reader) -> str:
    return serve(reader)


@pytest.fixture
def new_page(chromium) -> Iterator:
    """Open pages that ask only this machine; errors of scripts fail the test."""
    context = chromium.new_context(viewport={"width": 1500, "height": 950})
    context.set_default_timeout(PATIENCE)
    playwright.expect.set_options(timeout=PATIENCE)
    problems: list[str] = []

    def open_page(address: str):
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if is_foreign(request.url) else None)
        page.goto(address)
        return page

    yield open_page
    context.close()
    assert problems == []


def is_foreign(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:"))


@pytest.fixture
def page(new_page, address):
    return new_page(address)


def rows(page):
    return page.locator("#table .ag-row")


def expect_rows(page, count: int) -> None:
    playwright.expect(page.locator("#count-text")).to_have_text(f"{count} rows")


def apply_sql(page, text: str) -> None:
    page.fill("#text", text)
    page.click("#apply")


def legend(page) -> list[str]:
    return page.locator("#spectra .legendtext").all_text_contents()


def test_filters_narrow_the_table_and_show_their_sql(page, reader):
    expect_rows(page, 240)
    page.get_by_text("O", exact=True).click()
    expect_rows(page, reader.count(Selection(elements=("O",))))
    page.get_by_text("none", exact=True).click()
    expect_rows(page, reader.count(Selection(elements=("O",), match="none")))
    page.locator("input[placeholder=to]").first.fill("4")
    expect_rows(page, reader.count(Selection(elements=("O",), match="none", ranges={"nsites": (None, 4)})))
    playwright.expect(page.locator("#statement")).to_contain_text('"nsites" <= 4')
    page.click("#reset")
    expect_rows(page, 240)


def test_table_sorts_all_rows_and_not_only_those_shown(page, reader):
    page.locator("#table").get_by_text("mean_frequency", exact=True).click()
    (slowest,) = reader.query("SELECT material_id FROM predictions ORDER BY mean_frequency LIMIT 1").to_pylist()
    playwright.expect(page.locator("#table .ag-row[row-index='0']")).to_contain_text(slowest["material_id"])


def test_ticked_rows_are_drawn_with_their_computed_spectra(page, reader):
    playwright.expect(page.locator("#spectra .legendtext").first).to_be_visible()
    ids = reader.query("SELECT material_id FROM predictions LIMIT 3")["material_id"].to_pylist()
    for row in (1, 2):
        page.click(f"#table .ag-row[row-index='{row}'] .ag-checkbox-input-wrapper")
    playwright.expect(page.locator("#active")).to_have_text(ids[2])
    playwright.expect(page.locator("#spectra .legendtext")).to_have_count(3)
    drawn = legend(page)
    assert [sum(name.endswith(f"· {row}") for name in drawn) for row in ids] == [0, 1, 1]
    assert sum("computed" in name for name in drawn) == 1, "only the second material is computed"


def test_crystal_of_the_chosen_row_is_drawn_in_3d(page):
    playwright.expect(page.locator("#viewer canvas")).to_be_visible()
    playwright.expect(page.locator("#facts")).to_contain_text("Space group")
    page.wait_for_function("Number(document.getElementById('viewer').dataset.atoms) > 1")


def test_nearest_spectra_are_listed(page):
    page.get_by_role("tab", name="Similar spectra").click()
    playwright.expect(page.locator("#neighbors tbody tr")).to_have_count(10)


def draw_box(page) -> None:
    """Draw a box over the left half of the scatter plot."""
    box = page.locator("#scatter .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 5, steps=4)
    page.mouse.up()


def test_box_in_the_scatter_plot_selects_rows(page):
    # A plot that is drawn again, because the other one has found its place, forgets a box that is half drawn.
    page.locator("#scatter .nsewdrag").wait_for()
    page.locator("#spectra .legendtext").first.wait_for()
    page.wait_for_load_state("networkidle")
    draw_box(page)
    playwright.expect(page.locator("#statement")).to_contain_text('"mean_frequency" <=')
    playwright.expect(page.locator("#count-text")).not_to_have_text("240 rows")
    page.click("#clear-box")
    expect_rows(page, 240)


def test_selection_is_saved_as_files(page, reader, tmp_path):
    (first,) = reader.query("SELECT material_id FROM predictions LIMIT 1")["material_id"].to_pylist()
    text = f"nsites = 2 AND material_id <> '{first}'"
    apply_sql(page, text)
    count = reader.count(Selection(text=text))
    expect_rows(page, count)
    (now,) = reader.query(f"SELECT material_id FROM predictions WHERE {text} LIMIT 1")["material_id"].to_pylist()
    # the number may come before the rows, and new rows have no ticks
    playwright.expect(page.locator("#table .ag-row[row-index='0']")).to_contain_text(now)
    page.click("#table .ag-row[row-index='0'] .ag-checkbox-input-wrapper")
    playwright.expect(page.locator("#shown")).to_contain_text("ticked")
    for ticked, expected in ((True, 1), (False, count)):
        if not ticked:
            page.click("#table .ag-row[row-index='0'] .ag-checkbox-input-wrapper")
            playwright.expect(page.locator("#shown")).to_contain_text("first rows")
        with page.expect_download() as download:
            page.get_by_role("button", name="Parquet").click()
        download.value.save_as(tmp_path / "saved.parquet")
        assert len(pq.read_table(tmp_path / "saved.parquet")) == expected


def test_filters_are_still_there_after_a_reload(page, reader):
    page.get_by_text("O", exact=True).click()
    count = reader.count(Selection(elements=("O",)))
    expect_rows(page, count)
    page.reload()
    expect_rows(page, count)
    playwright.expect(page.locator("input[value=O]")).to_be_checked()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nsites <", "syntax error"),
        ("nsites > 1); COPY predictions TO '/tmp/stolen'; --", "only one SELECT|syntax error"),
        ("SELECT * FROM read_text('/etc/passwd')", "not of this run"),
        ("error(formula_pretty)", "error|BOOL|convert"),
    ],
)
def test_wrong_sql_is_explained_and_leaves_the_page_usable(page, reader, text, reason):
    expect_rows(page, 240)
    apply_sql(page, text)
    playwright.expect(page.locator("#error")).to_have_text(re.compile(reason, re.IGNORECASE))
    apply_sql(page, "nsites = 2")
    expect_rows(page, reader.count(Selection(text="nsites = 2")))
    playwright.expect(page.locator("#error")).to_be_hidden()


def test_answer_of_another_query_has_its_own_columns(page):
    apply_sql(page, "SELECT nsites, count(*) AS crystals FROM predictions GROUP BY nsites ORDER BY crystals DESC")
    playwright.expect(page.locator("#table .ag-header")).to_contain_text("crystals")
    playwright.expect(page.locator("#table .ag-header")).not_to_contain_text("formula_pretty")
    rows(page).first.wait_for()


def test_rejects_are_counted_by_reason_and_listed(page):
    page.get_by_role("tab", name="Rejects (3)").click()
    page.locator("#reasons .ag-row").first.click()
    playwright.expect(page.locator("#reject-rows")).to_contain_text("lost-a")
    playwright.expect(page.locator("#reject-rows")).to_contain_text("site 2 has no neighbor")


def test_record_of_the_run_is_shown(page):
    page.get_by_role("tab", name="Run", exact=True).click()
    playwright.expect(page.get_by_text("materials.parquet").first).to_be_visible()


def test_run_that_is_still_being_written_grows_with_a_reload(new_page, serve, unfinished_run, small_run):
    page = new_page(serve(RunReader(unfinished_run)))
    expect_rows(page, 120)
    playwright.expect(page.locator("#status")).to_contain_text("unfinished")
    for folder in ("rejects", "predictions"):
        shutil.copy(small_run / folder / "part-000001.parquet", unfinished_run / folder)
    shutil.copy(small_run / "run.json", unfinished_run)
    page.reload()
    expect_rows(page, 240)
    playwright.expect(page.locator("#status")).to_have_text("finished")
