"""Kept for registered MLflow models, which name this module as their loader; use mat2spec.predict.mlflow_model."""

from mat2spec.predict.mlflow_model import ServedModel, _load_pyfunc

__all__ = ["ServedModel", "_load_pyfunc"]
