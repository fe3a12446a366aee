import numpy as np
import pyarrow as pa
import pytest

from mat2spec.data.materials.schema import read_crystals
from mat2spec.dos.grid import PHDOS_GRID
from mat2spec.dos.thermodynamics import (
    heat_capacity,
    max_frequency,
    mean_frequency,
    vibrational_entropy,
    vibrational_free_energy,
)
from mat2spec.predict.table import Prediction, prediction_table
from mat2spec.storage.rejects import REJECT_COLUMNS
from mat2spec.structure.crystal import Crystal


@pytest.fixture
def make(small_table, splits, checkpoint):
    """The table of predictions for the small table, whose own labels stand for predictions."""

    def make_table(inputs: pa.Table, spread: np.ndarray | None = None) -> pa.Table:
        rows = [row for row in read_crystals(inputs) if isinstance(row, Crystal)]
        labels = {
            i: s.numpy()
            for part in (splits.train, splits.valid, splits.test)
            for i, s in zip(part.material_ids, part.spectra, strict=True)
        }
        spectra = np.stack([labels[row.material_id] for row in rows]) if rows else np.empty((0, 51), np.float32)
        return prediction_table(
            inputs, rows, [len(row) for row in rows], [2.0] * len(rows), Prediction(spectra, spread), checkpoint
        )

    return make_table


@pytest.fixture
def inputs(small_table) -> pa.Table:
    return small_table.drop_columns(["row", "phdos", "split"])


def test_columns_and_types_are_those_of_the_contract(make, inputs, contract):
    schema = make(inputs).schema
    assert dict(zip(schema.names, schema.types, strict=True)) == contract
    assert schema.names == list(contract)
    assert REJECT_COLUMNS.names == ["material_id", "source", "stage", "error_type", "error"]
    assert set(REJECT_COLUMNS.types) == {pa.string()}


def test_table_without_rows_has_the_same_columns(make, inputs):
    assert make(inputs.slice(0, 0)).schema == make(inputs).schema


def test_rows_say_what_the_network_had_seen(make, inputs, checkpoint, splits):
    for row in make(inputs).to_pylist():
        assert row["seen_in_training"] == (
            row["material_id"] in {*splits.train.material_ids, *splits.valid.material_ids}
        )
        assert row["id_in_training"] == row["seen_in_training"]
        assert row["unseen_elements"] == [e for e in row["elements"] if e not in checkpoint.card.training.elements]
        assert row["elements"] == sorted(row["elements"])
    assert any(row["unseen_elements"] for row in make(inputs).to_pylist()), "24 materials cannot hold every element"


def test_numbers_are_those_of_the_spectrum(make, inputs):
    table = make(inputs)
    spectra = np.array(table["spectrum"].to_pylist(), np.float32)
    quantities = {
        "mean_frequency": mean_frequency,
        "heat_capacity_300K": heat_capacity,
        "entropy_300K": vibrational_entropy,
        "free_energy_300K": vibrational_free_energy,
    }
    for name, quantity in quantities.items():
        np.testing.assert_allclose(table[name].to_numpy(), quantity(spectra, PHDOS_GRID), rtol=1e-6)
    ends = table["max_frequency"].to_numpy(zero_copy_only=False)
    exceeds = table["exceeds_grid"].to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(np.isnan(ends), exceeds)
    np.testing.assert_allclose(ends[~exceeds], max_frequency(spectra, PHDOS_GRID)[~exceeds], rtol=1e-6)
    assert table["spread"].null_count == len(table), "one network has no opinion about itself"


def test_volume_is_that_of_pymatgen_whatever_the_cell(make, inputs):
    crystals = [row for row in read_crystals(inputs) if isinstance(row, Crystal)]
    volumes = [crystal.to_structure().volume / len(crystal) for crystal in crystals]
    np.testing.assert_allclose(make(inputs)["volume_per_atom"].to_numpy(), volumes, rtol=1e-6)


def test_expected_error_stands_beside_what_an_ensemble_predicted(make, inputs, contract):
    expected = np.linspace(0.01, 0.1, len(inputs))
    table = make(inputs, expected)
    assert table.schema.field("spread").type == contract["spread"]
    np.testing.assert_allclose(table["spread"].to_numpy(), expected, rtol=1e-6)


def test_spectrum_with_weight_in_its_last_bin_is_flagged(inputs, checkpoint):
    spectra = np.zeros((36, 51), np.float32)
    spectra[:, 10] = 1.0
    spectra[:3, -1] = 0.06, 0.04, 1.0
    rows = list(read_crystals(inputs))
    flags = prediction_table(inputs, rows, [1] * 36, [2.0] * 36, Prediction(spectra), checkpoint)[
        "exceeds_grid"
    ].to_pylist()
    assert flags == [True, False, True] + [False] * 33


def test_columns_of_the_input_stay_and_never_hide_a_result(make, inputs, contract):
    extra = inputs.append_column("band_gap", pa.array([1.5] * 36, pa.float32())).append_column(
        "spectrum", pa.array(["mine"] * 36)
    )
    table = make(extra)
    assert table.column_names == [*contract, "band_gap", "input_spectrum"]
    assert table["band_gap"].type == pa.float32()
    assert table["input_spectrum"].to_pylist() == ["mine"] * 36
    assert table["spectrum"].type == contract["spectrum"]


@pytest.mark.parametrize("names", [("spectrum", "input_spectrum"), ("input_spectrum", "spectrum")])
def test_prefixed_name_that_is_taken_loses_no_column(make, inputs, contract, names):
    """A materials table made from the predictions of an earlier run."""
    for name in names:
        inputs = inputs.append_column(name, pa.array([name] * 36))
    table = make(inputs)
    extra_values = [
        column.to_pylist()[0]
        for name, column in zip(table.column_names, table.columns, strict=True)
        if name not in contract
    ]
    assert sorted(extra_values) == sorted(names)
    assert len(set(table.column_names)) == len(table.column_names)


def test_name_that_differs_only_in_case_hides_no_result_from_sql(make, inputs):
    inputs = inputs.append_column("MATERIAL_ID", pa.array(["theirs"] * 36)).append_column("Spread", pa.array([1] * 36))
    table = make(inputs)
    assert table.column_names[-2:] == ["input_MATERIAL_ID", "input_Spread"]
    assert table["material_id"].equals(inputs["material_id"])
