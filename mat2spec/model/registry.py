"""The networks by name: what a configuration's `model` section builds."""

from mat2spec.config import AdditiveConfig, E3NNConfig, EnsembleConfig, GATGNNConfig, Mat2SpecConfig, TrainConfig
from mat2spec.errors import ConfigError
from mat2spec.model.additive import Additive
from mat2spec.model.ensemble import Ensemble
from mat2spec.model.gatgnn import GATGNN
from mat2spec.model.mat2spec import Mat2Spec
from mat2spec.model.network import SpectrumNetwork
from mat2spec.spectrum import GRIDS


def build_network(config: TrainConfig) -> SpectrumNetwork:
    """Make a network with fresh weights.

    Raises:
        ConfigError: If the network's package is not installed.
    """
    task = (len(GRIDS[config.grid]), config.normalization, config.loss)
    match config.model:
        case Mat2SpecConfig():
            return Mat2Spec(config.model, *task)
        case GATGNNConfig():
            return GATGNN(config.model, *task)
        case AdditiveConfig():
            return Additive(config.model, config.graph.cutoff, GRIDS[config.grid], config.normalization, config.loss)
        case E3NNConfig():
            try:
                from mat2spec.model.e3nn import E3NN  # an optional extra, and seconds to import
            except ModuleNotFoundError as error:
                raise ConfigError(f"model.architecture: e3nn needs {error.name}: pip install 'mat2spec[e3nn]'") from None
            return E3NN(config.model, config.graph.cutoff, *task)
        case EnsembleConfig(members=count, member=member):
            return Ensemble([build_network(config.model_copy(update={"model": member})) for _ in range(count)], *task)
