"""What an experiment is: every setting with its unit and its limits, read from one YAML file and the command line."""

from mat2spec.config.experiments import (
    DataConfig,
    GraphConfig,
    InferenceConfig,
    ScreenConfig,
    TrainConfig,
    TrainingConfig,
    WorkersConfig,
)
from mat2spec.config.loading import AnyConfig, load_config, validate
from mat2spec.config.networks import AdditiveConfig, E3NNConfig, EnsembleConfig, GATGNNConfig, Mat2SpecConfig, NetworkConfig
from mat2spec.config.section import Section
from mat2spec.config.tables import TableConfig, TableRow

__all__ = [
    "AdditiveConfig",
    "AnyConfig",
    "DataConfig",
    "E3NNConfig",
    "EnsembleConfig",
    "GATGNNConfig",
    "GraphConfig",
    "InferenceConfig",
    "Mat2SpecConfig",
    "NetworkConfig",
    "ScreenConfig",
    "Section",
    "TableConfig",
    "TableRow",
    "TrainConfig",
    "TrainingConfig",
    "WorkersConfig",
    "load_config",
    "validate",
]
