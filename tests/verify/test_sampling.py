"""Samples of a run for verification."""

import shutil

from standins import write_run

from mat2spec.config import VerifyConfig
from mat2spec.query.catalog import run_query
from mat2spec.verify.sampling import draw_sample

ROWS = 9


def test_sample_is_the_same_for_a_run_that_was_moved_to_a_folder_with_special_characters(tmp_path):
    write_run(tmp_path / "run", ROWS)
    moved = shutil.copytree(tmp_path / "run", tmp_path / "it's a run, [1-3] *?{x} é")
    config = VerifyConfig(run="run", where="nsites = 2", limit=1, sample_negatives=2)
    sample = draw_sample(moved, config)
    assert sample == draw_sample(tmp_path / "run", config)
    counts = run_query(moved, "SELECT count(*) FILTER (nsites = 2) AS hits FROM predictions WHERE NOT seen_in_training")
    hits = counts["hits"][0].as_py()
    assert (sample.shortlist_size, sample.others_size) == (hits, ROWS - 1 - hits)
    assert sample.predicted_hit == (True, False, False)
    assert sample.weights == (hits, (ROWS - 1 - hits) / 2, (ROWS - 1 - hits) / 2)
