"""Build the network that the `model` section of a configuration describes."""

from typing import cast

from mat2spec.config import (
    AdditiveConfig,
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
    ProjectedConfig,
    TrainConfig,
    VectorGapConfig,
)
from mat2spec.dos.grid import GRIDS
from mat2spec.errors import ConfigError
from mat2spec.model.additive import Additive
from mat2spec.model.band_gap import BandGapNetwork
from mat2spec.model.base import Network, SpectrumNetwork
from mat2spec.model.baselines import ElementalSpectra, MeanSpectrum
from mat2spec.model.combined import Combined
from mat2spec.model.ensemble import Ensemble
from mat2spec.model.features import AtomFeatures
from mat2spec.model.gapped import Gapped
from mat2spec.model.gatgnn import GATGNN
from mat2spec.model.mat2spec import Mat2Spec
from mat2spec.model.projected import ProjectedDOS


def build_network(config: TrainConfig) -> Network:
    """Make a network with fresh weights.

    Raises:
        ConfigError: If the network's package is not installed.
    """
    task = (len(GRIDS[config.grid]), config.normalization, config.loss)
    match config.model:
        case Mat2SpecConfig():
            return Mat2Spec(config.model, *task)
        case GapConfig() | VectorGapConfig():
            return BandGapNetwork(config.model, config.graph.cutoff)
        case FeaturesConfig():
            return AtomFeatures(config.model, config.graph.cutoff)
        case MeanConfig():
            return MeanSpectrum(*task)
        case ElementalConfig():
            return ElementalSpectra(*task)
        case CombinedConfig(shape=shape, scale=scale, gap=gap):
            bins = len(GRIDS[config.grid])
            return Combined(
                Mat2Spec(shape, bins, "sum", "kl"),
                Mat2Spec(scale, bins, "standard", "mae"),
                BandGapNetwork(gap, config.graph.cutoff),
            )
        case GappedConfig(spectrum=spectrum, gap=gap):
            whole = build_network(config.model_copy(update={"model": spectrum}))
            return Gapped(
                cast(SpectrumNetwork, whole),
                BandGapNetwork(gap, config.graph.cutoff),
                config.normalization,
                config.loss,
            )
        case GATGNNConfig():
            return GATGNN(config.model, *task)
        case AdditiveConfig():
            return Additive(config.model, config.graph.cutoff, GRIDS[config.grid], config.normalization, config.loss)
        case ProjectedConfig():
            return ProjectedDOS(config.model, config.graph.cutoff, *task)
        case E3NNConfig():
            try:
                from mat2spec.model.e3nn import E3NN  # an optional extra, and seconds to import
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"model.architecture: e3nn needs {error.name}: pip install 'mat2spec[e3nn]'"
                ) from None
            return E3NN(config.model, config.graph.cutoff, *task)
        case EnsembleConfig(members=count, member=member):
            members = [build_network(config.model_copy(update={"model": member})) for _ in range(count)]
            return Ensemble(cast(list[SpectrumNetwork], members), *task)


def label_size(config: TrainConfig) -> int | None:
    """Numbers in the label of each crystal: a band gap, or the bins of a spectrum; None if atoms have labels."""
    match config.model:
        case GapConfig() | VectorGapConfig():
            return 1
        case FeaturesConfig():
            return None
    return len(GRIDS[config.grid])
