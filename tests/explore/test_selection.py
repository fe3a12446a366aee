"""The selection as SQL: what the filters mean, and what a text may be."""

import json

import pytest

from mat2spec.errors import QueryError
from mat2spec.explore.selection import Selection
from mat2spec.query.catalog import run_query


def ids(reader, selection: Selection) -> set[str]:
    return set(reader.query(selection.statement(reader.record))["material_id"].to_pylist())


@pytest.fixture(scope="module")
def everything(reader) -> list[dict]:
    return reader.query("SELECT * FROM predictions").to_pylist()


FILTERS = {
    "all": (Selection(elements=("Ba", "Te")), lambda row: {"Ba", "Te"} <= set(row["elements"])),
    "any": (Selection(elements=("O", "S"), match="any"), lambda row: bool({"O", "S"} & set(row["elements"]))),
    "only": (Selection(elements=("Li", "O", "F"), match="only"), lambda row: set(row["elements"]) <= {"Li", "O", "F"}),
    "none": (Selection(elements=("O", "F"), match="none"), lambda row: not {"O", "F"} & set(row["elements"])),
    "sites": (Selection(ranges={"nsites": (3, 5)}), lambda row: 3 <= row["nsites"] <= 5),
    "one limit": (Selection(ranges={"mean_frequency": (None, 200)}), lambda row: row["mean_frequency"] <= 200),
    "seen": (Selection(seen=True), lambda row: row["seen_in_training"]),
    "unseen": (Selection(seen=False), lambda row: not row["seen_in_training"]),
    "condition": (Selection(text="nsites = 2 OR nsites = 4"), lambda row: row["nsites"] in (2, 4)),
    "condition and filter": (
        Selection(text="nsites = 2 OR nsites = 4", ranges={"nsites": (3, None)}),
        lambda row: row["nsites"] == 4,
    ),
    "query and filter": (
        Selection(text="SELECT material_id FROM predictions WHERE nsites < 5;", ranges={"nsites": (3, None)}),
        lambda row: row["nsites"] in (3, 4),
    ),
    "comment": (Selection(text="nsites = 2 -- only pairs", seen=None), lambda row: row["nsites"] == 2),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_select_the_rows_that_their_names_say(reader, everything, name):
    selection, is_selected = FILTERS[name]
    expected = {row["material_id"] for row in everything if is_selected(row)}
    assert 0 < len(expected) < len(everything)
    assert ids(reader, selection) == expected


def test_window_without_states_leaves_less_than_a_hundredth_of_all_in_it(reader, everything):
    grid = reader.grid
    inside = (grid.points > 500) & (grid.points < 600)
    selected = ids(reader, Selection(window=(500, 600)))
    assert 0 < len(selected) < len(everything)
    for row in everything:
        states = sum(density * 20 for density, use in zip(row["spectrum"], inside, strict=True) if use)
        assert states < 0.03 or row["material_id"] not in selected


def test_materials_with_a_computed_spectrum_can_be_selected(reader, everything):
    assert ids(reader, Selection(computed=True)) == {row["material_id"] for row in everything[:2]}


def test_box_of_the_scatter_plot_applies_to_columns_of_the_answer(reader):
    text = "SELECT nsites, count(*) AS crystals FROM predictions GROUP BY nsites"
    sql = Selection(text=text, box={"crystals": (10.0, None)}).statement(reader.record)
    assert 0 < len(reader.query(sql)) < len(reader.query(text))


def test_ready_query_of_the_cookbook_is_a_selection(reader, small_run):
    answer = reader.query(Selection(text="@stiff_oxides").statement(reader.record))
    assert answer.num_rows
    assert answer.equals(run_query(small_run, "@stiff_oxides"))


def test_query_command_answers_the_statement_with_the_same_rows(reader, small_run):
    selection = Selection(elements=("O",), text="nsites < 6", seen=False, ranges={"spread": (None, 1.0)})
    answer = run_query(small_run, selection.statement(reader.record))
    assert set(answer["material_id"].to_pylist()) == ids(reader, selection)


def test_selection_survives_the_browser(reader):
    selection = Selection(text="nsites < 6", elements=("O",), ranges={"nsites": (1, None)}, window=(500, 600))
    assert Selection(**json.loads(json.dumps(selection.model_dump(mode="json")))) == selection


@pytest.mark.parametrize("name", ["it's", 'a"b', "nsites; DROP VIEW predictions"])
def test_names_are_quoted(reader, name):
    assert ids(reader, Selection(elements=(name,))) == ids(reader, Selection(ids=(name,))) == set()
    with pytest.raises(QueryError, match="not found"):
        reader.query(Selection(ranges={name: (0, 1)}).statement(reader.record))


HOSTILE = {
    "second statement": ("nsites > 1); COPY (SELECT 1) TO '{folder}/stolen'; --", "only one SELECT|syntax"),
    "copy": ("COPY predictions TO '{folder}/stolen'", "only one SELECT"),
    "copy into the run": ("COPY predictions TO '{run}/stolen'", "only one SELECT"),
    "two queries": ("SELECT 1; SELECT 2", "only one SELECT"),
    "table": ("CREATE TABLE mine AS SELECT 1", "only one SELECT"),
    "attach": ("ATTACH '{folder}/stolen'", "only one SELECT"),
    "setting": ("SET enable_external_access = true", "only one SELECT"),
    "pragma": ("PRAGMA enable_external_access", "only one SELECT|Catalog"),
    "another file": ("SELECT * FROM read_text('/etc/passwd')", "not of this run"),
    "files by a glob": ("SELECT * FROM glob('/etc/*')", "not of this run"),
    "file above the run": ("SELECT * FROM read_text('{run}/../materials.parquet')", "not of this run"),
    "file in a condition": ("nsites < (SELECT size FROM read_text('/etc/passwd'))", "not of this run"),
    "extension": ("INSTALL httpfs", "only one SELECT"),
    "unknown ready query": ("@nonsense", "there is no query @nonsense"),
    "unfinished condition": ("nsites <", "syntax error"),
    "unknown column": ("sites < 3", "sites"),
    "wrong type": ("formula_pretty + 1 > 2", "formula_pretty|Conversion|VARCHAR"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_text_that_is_no_question_about_the_run_is_refused_in_one_line(reader, small_run, name, tmp_path):
    text, reason = HOSTILE[name]
    before = {path: path.stat().st_mtime_ns for path in small_run.rglob("*")}
    with pytest.raises(QueryError, match=reason) as refused:
        reader.query(Selection(text=text.format(folder=tmp_path, run=small_run)).statement(reader.record))
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())
    assert {path: path.stat().st_mtime_ns for path in small_run.rglob("*")} == before
    assert reader.count(Selection(text="true")) == 240, "the connection stays usable"
