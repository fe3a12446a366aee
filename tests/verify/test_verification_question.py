"""The question @verification against sums by hand: sampled others count for all for which they were drawn."""

import duckdb
import pytest

from mat2spec.query.catalog import cookbook


def asked(rows: str) -> dict:
    with duckdb.connect() as connection:
        names = "material_id, predicted_hit, weight, seen_in_training, computed_hit"
        connection.execute(
            f"CREATE VIEW verification AS SELECT 'c' AS campaign, 'x' AS condition, 'gpaw' AS engine, * FROM (VALUES {rows}) t({names})"
        )
        (row,) = connection.sql(cookbook()["verification"].sql).to_arrow_table().to_pylist()
    return row


def test_precision_and_recall_by_hand():
    hits = "('a', true, 2.0, false, true), ('b', true, 2.0, false, true), ('c', true, 2.0, false, false), ('r', true, 2.0, false, NULL)"
    others = "('d', false, 10.0, false, true), ('e', false, 10.0, false, false), ('s', false, 10.0, true, true)"
    row = asked(f"{hits}, {others}")
    assert (
        row["computed"],
        row["rejected"],
        row["judged"],
        row["hits"],
        row["confirmed"],
        row["others"],
        row["missed"],
    ) == (
        6,
        1,
        5,
        3,
        2,
        2,
        1,
    )
    assert row["precision"] == pytest.approx(4 / 6, abs=1e-4)
    assert row["recall"] == pytest.approx(4 / 14, abs=1e-4)
    assert row["f1"] == pytest.approx(8 / 20, abs=1e-4)
    assert row["precision_low"] <= row["precision"] <= row["precision_high"]


def test_without_sampled_others_there_is_no_recall():
    row = asked("('a', true, 1.0, false, true), ('b', true, 1.0, false, false)")
    assert (row["precision"], row["recall"], row["f1"]) == (0.5, None, None)
