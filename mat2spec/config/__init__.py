"""Settings of all commands, with units and limits; read from a YAML file and the command line."""

from mat2spec.config.active_learning import ProposeConfig
from mat2spec.config.base import Section
from mat2spec.config.benchmark_table import TableConfig, TableRow
from mat2spec.config.evaluation import EvaluateConfig
from mat2spec.config.explore import ExploreConfig
from mat2spec.config.heads import AboveGridConfig, ExpectedErrorConfig, HeadConfig
from mat2spec.config.ingestion import IngestConfig, ProcessLimitsConfig, ReadingConfig
from mat2spec.config.labels import LabelsConfig
from mat2spec.config.loading import load_config, read_options
from mat2spec.config.materials_project import DownloadConfig, MaterialsProjectConfig, QueryConfig
from mat2spec.config.networks import (
    AdditiveConfig,
    AnyGapConfig,
    CombinedConfig,
    E3NNConfig,
    ElementalConfig,
    EnsembleConfig,
    FeaturesConfig,
    GapConfig,
    GappedConfig,
    GATGNNConfig,
    Mat2SpecConfig,
    MeanConfig,
    NetworkConfig,
    ProjectedConfig,
    VectorConfig,
    VectorGapConfig,
)
from mat2spec.config.prediction import PredictConfig
from mat2spec.config.query import RunQueryConfig
from mat2spec.config.screening import InferenceConfig, ScreenConfig
from mat2spec.config.splits import SplitConfig
from mat2spec.config.substitution import SubstituteConfig
from mat2spec.config.tracking import UiConfig
from mat2spec.config.training import DataConfig, GraphConfig, TrainConfig, TrainingConfig, WorkersConfig
from mat2spec.config.validation import AnyConfig, validate
from mat2spec.config.verification import GpawConfig, LimitsConfig, PhononConfig, VerifyConfig

__all__ = [
    "AboveGridConfig",
    "AdditiveConfig",
    "AnyConfig",
    "AnyGapConfig",
    "CombinedConfig",
    "DataConfig",
    "DownloadConfig",
    "E3NNConfig",
    "ElementalConfig",
    "EnsembleConfig",
    "EvaluateConfig",
    "ExpectedErrorConfig",
    "ExploreConfig",
    "FeaturesConfig",
    "GATGNNConfig",
    "GapConfig",
    "GappedConfig",
    "GpawConfig",
    "GraphConfig",
    "HeadConfig",
    "InferenceConfig",
    "IngestConfig",
    "LabelsConfig",
    "LimitsConfig",
    "Mat2SpecConfig",
    "MaterialsProjectConfig",
    "MeanConfig",
    "NetworkConfig",
    "PhononConfig",
    "PredictConfig",
    "ProcessLimitsConfig",
    "ProjectedConfig",
    "ProposeConfig",
    "QueryConfig",
    "ReadingConfig",
    "RunQueryConfig",
    "ScreenConfig",
    "Section",
    "SplitConfig",
    "SubstituteConfig",
    "TableConfig",
    "TableRow",
    "TrainConfig",
    "TrainingConfig",
    "UiConfig",
    "VectorConfig",
    "VectorGapConfig",
    "VerifyConfig",
    "WorkersConfig",
    "load_config",
    "read_options",
    "validate",
]
