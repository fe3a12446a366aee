"""A checkpoint as an MLflow pyfunc model: `mlflow models serve` returns spectra for rows of a materials table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch

from mat2spec.data.materials.schema import check_schema, read_crystals
from mat2spec.errors import StructureError
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.predictor import Predictor

if TYPE_CHECKING:
    import pandas as pd


EXAMPLE: dict[str, Any] = {
    "material_id": "silicon",
    "formula_pretty": "Si",
    "nsites": 2,
    "atomic_numbers": [14, 14],
    "lattice": [0.0, 2.7155, 2.7155, 2.7155, 0.0, 2.7155, 2.7155, 2.7155, 0.0],
    "frac_coords": [0.0, 0.0, 0.0, 0.25, 0.25, 0.25],
}
"""A row of a materials table: silicon, a = 5.431 Å."""


class ServedModel:
    """Predicts one spectrum per row of a data frame of structures."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None = None) -> list[list[float]]:
        """Predict spectra [phonons: states per cm⁻¹ per atom; electrons: states/eV per primitive cell].

        Raises:
            TableError: If a column is missing.
            StructureError: If a row cannot be a crystal.
        """
        table = pa.Table.from_pandas(model_input, preserve_index=False)
        check_schema(table.schema, "request")
        rows = list(read_crystals(table))
        for row in rows:
            if isinstance(row, StructureError):
                raise row
        return self._predictor.predict_spectra([row for row in rows if not isinstance(row, StructureError)]).tolist()


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load the model; the function that MLflow calls in a loader module."""
    return ServedModel(Predictor(Checkpoint.load(Path(data_path)), torch.device("cpu")))
