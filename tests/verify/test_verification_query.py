"""The named query @verification against sums by hand: a sampled material counts for all that it represents."""

import duckdb
import pytest
from scipy.stats import binomtest

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
    for score in ("precision", "recall", "f1"):
        assert 0 < row[f"{score}_low"] < row[score] < row[f"{score}_high"] < 1


@pytest.mark.parametrize(("confirmed", "hits"), [(0, 1), (1, 1), (2, 14), (7, 10), (20, 20)])
def test_interval_of_the_precision_is_wilsons(confirmed, hits):
    rows = [f"('m{i}', true, 3.0, false, {i < confirmed})" for i in range(hits)]
    interval = binomtest(confirmed, hits).proportion_ci(0.95, "wilson")
    row = scores(", ".join(rows))
    assert (row["precision_low"], row["precision_high"]) == pytest.approx(interval, abs=2e-4)


def test_recall_of_a_small_sample_without_a_miss_is_uncertain():
    """None of two others is a hit, so up to two thirds of a thousand may be."""
    others = ", ".join(f"('o{i}', false, 500.0, false, false)" for i in range(2))
    row = scores(f"('a', true, 1.0, false, true), {others}")
    assert row["recall"] == 1
    assert row["recall_low"] < 0.001
    assert row["recall_high"] == 1


def test_there_is_no_recall_without_a_sample_of_the_other_materials():
    row = scores("('a', true, 1.0, false, true), ('b', true, 1.0, false, false)")
    assert (row["precision"], row["recall"], row["f1"]) == (0.5, None, None)
