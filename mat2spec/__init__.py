"""Predict phonon and electronic densities of states of crystals, and screen structures by them.

    model = mat2spec.load("phdos")
    spectrum = model.predict(Structure.from_file("Si.cif"))
    spectrum.plot()

Names are imported when they are first used: processes that only read structures never load torch.
"""

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

    from mat2spec.dos.grid import EDOS_GRID, PHDOS_GRID
    from mat2spec.predict.predictor import Predictor
    from mat2spec.predict.spectrum import Spectrum
    from mat2spec.storage.location import Location
    from mat2spec.structure.crystal import Crystal

    __version__: str

__all__ = ["EDOS_GRID", "PHDOS_GRID", "Crystal", "Predictor", "Spectrum", "__version__", "load", "open_run"]

_MODULES = {
    "Crystal": "mat2spec.structure.crystal",
    "EDOS_GRID": "mat2spec.dos.grid",
    "PHDOS_GRID": "mat2spec.dos.grid",
    "Predictor": "mat2spec.predict.predictor",
    "Spectrum": "mat2spec.predict.spectrum",
}


def load(model: "str | os.PathLike[str]", device: str | None = None) -> "Predictor":
    """Load a model that predicts spectra.

    Args:
        model: Name of a checkpoint that ships (phdos, phdos-mat2spec, edos), directory or URL of a checkpoint, or an
            MLflow address, models:/NAME@ALIAS. MLflow's store is MLFLOW_TRACKING_URI, else runs/mlflow.db.
        device: As torch names it, for example "cpu" or "cuda:1"; default: a GPU if there is one, else the CPU.

    Raises:
        CheckpointError: If there is no such checkpoint, it is damaged, or it predicts no spectra.
        ConfigError: If there is no such device.
        MissingExtraError: If MLflow is needed and not installed.
    """
    from mat2spec.model.checkpoint import Checkpoint, resolve_checkpoint
    from mat2spec.predict.predictor import Predictor

    name = os.fspath(model)
    directory = _fetch_registered(name) if name.startswith("models:/") else resolve_checkpoint(name)
    return Predictor(Checkpoint.load(directory), device)


def open_run(path: "str | os.PathLike[str]") -> "duckdb.DuckDBPyConnection":
    """Open a run in DuckDB, with its views and macros: from any directory, wherever the run was moved.

    The views read the run's files at each query, so that those of an unfinished run grow with it. Tables that you
    create are in memory; the run is not changed by them. Answers become data frames by `.df()` (pandas), `.pl()`
    (polars, if it is installed) or `.to_arrow_table()`.

    Args:
        path: Directory or URL of a screening or an ingestion, as `mat2spec query` takes it.

    Returns:
        A connection for this run alone. Close it, or use it in a `with` block.

    Raises:
        RunError: If there is no run, it cannot be read, or no part of it is finished yet.
    """
    from mat2spec.query.catalog import open_run

    return open_run(str(path))


def _fetch_registered(uri: str) -> "Location":
    """Download a registered model, beside the trainings that runs/ holds."""
    from mat2spec.errors import MissingExtraError
    from mat2spec.storage.paths import resolve

    try:
        from mat2spec.distributed.mlflow.store import fetch_checkpoint
    except ModuleNotFoundError as error:
        if error.name != "mlflow":
            raise
        raise MissingExtraError("loading models:/ URIs", "cluster") from None
    return fetch_checkpoint(uri, resolve("runs/prediction"))


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("mat2spec")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
