"""The named query @verification against sums by hand: a sampled material counts for all that it represents."""

import duckdb
import pytest

from mat2spec.query.catalog import cookbook


def scores(rows: str) -> dict:
    """Answer of @verification for these rows of a campaign."""
    columns = "material_id, predicted_hit, weight, seen_in_training, computed_hit"
    with duckdb.connect() as connection:
        connection.execute(
            f"""CREATE VIEW verification AS
                SELECT 'c' AS campaign, 'x' AS condition, 'gpaw' AS engine, * FROM (VALUES {rows}) t({columns})"""
        )
        (row,) = connection.sql(cookbook()["verification"].sql).to_arrow_table().to_pylist()
    return row


def test_precision_recall_and_f1_are_those_of_weighted_sums():
    shortlist = """('a', true, 2.0, false, true), ('b', true, 2.0, false, true), ('c', true, 2.0, false, false),
                   ('r', true, 2.0, false, NULL)"""
    others = "('d', false, 10.0, false, true), ('e', false, 10.0, false, false), ('s', false, 10.0, true, true)"
    row = scores(f"{shortlist}, {others}")
    counts = {"computed": 6, "rejected": 1, "judged": 5, "hits": 3, "confirmed": 2, "others": 2, "missed": 1}
    assert {name: row[name] for name in counts} == counts
    assert row["precision"] == pytest.approx(4 / 6, abs=1e-4)
    assert row["recall"] == pytest.approx(4 / 14, abs=1e-4)
    assert row["f1"] == pytest.approx(8 / 20, abs=1e-4)
    assert row["precision_low"] <= row["precision"] <= row["precision_high"]


def test_there_is_no_recall_without_a_sample_of_the_other_materials():
    row = scores("('a', true, 1.0, false, true), ('b', true, 1.0, false, false)")
    assert (row["precision"], row["recall"], row["f1"]) == (0.5, None, None)
