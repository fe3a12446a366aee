import numpy as np
import pyarrow as pa
import pytest
import torch

from mat2spec.data.materials.schema import read_crystals
from mat2spec.errors import StructureError, TableError
from mat2spec.predict.mlflow_model import ServedModel, _load_pyfunc
from mat2spec.predict.predictor import Predictor
from mat2spec.structure.crystal import Crystal


@pytest.fixture(scope="module")
def served(checkpoint_directory) -> ServedModel:
    return _load_pyfunc(str(checkpoint_directory))


def test_served_model_answers_as_the_predictor(served, small_table, checkpoint):
    structures = [row for row in read_crystals(small_table.slice(0, 5)) if isinstance(row, Crystal)]
    answer = served.predict(small_table.slice(0, 5).to_pandas())
    np.testing.assert_array_equal(answer, Predictor(checkpoint, torch.device("cpu")).predict_spectra(structures))


def test_request_that_lacks_a_column_or_holds_no_crystal_is_refused(served, small_table):
    with pytest.raises(TableError, match="request: missing column lattice"):
        served.predict(small_table.drop_columns("lattice").slice(0, 1).to_pandas())
    empty = small_table.slice(0, 1).set_column(3, "nsites", pa.array([7]))
    with pytest.raises(StructureError, match="nsites is 7"):
        served.predict(empty.to_pandas())
