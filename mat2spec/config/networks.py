"""Settings of the networks: architectures and their sizes."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from mat2spec.config.base import Positive, Section


class Mat2SpecConfig(Section):
    """Mat2Spec (Kong et al., 10.1038/s41467-022-28543-x); the defaults are the sizes of the published code."""

    architecture: Literal["mat2spec"] = Field("mat2spec", description="Mat2Spec, the network of the paper")
    preset: Literal["corrected", "original"] = Field(
        "corrected",
        description="original: as in the published code: random samples at test time, its pairing of Gaussians, "
        "its contrastive loss",
    )
    layers: Positive = Field(3, description="graph attention layers")
    heads: Positive = Field(4, description="attention heads")
    width: Positive = Field(128, description="features per atom and per edge")
    gaussians: int = Field(41, gt=1, description="Gaussians in the expansion of a distance, from 0 to 8 Å")
    components: Positive = Field(10, description="Gaussians in the mixture of a crystal")
    latent: Positive = Field(128, description="dimension of the Gaussian mixtures")
    representation: Positive = Field(512, description="width of the translator and of the predictor")
    projection: Positive = Field(
        1024, description="dimension in which the contrastive loss compares crystals and spectra"
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout rate before the mixtures")
    alignment_weight: float = Field(
        1.1, ge=0, description="weight of the divergence between the two mixtures; 0 turns it off"
    )
    contrastive_weight: float = Field(
        0.1, ge=0, description="weight of the contrastive loss; 0 turns it and the projector off"
    )


class GATGNNConfig(Section):
    """GATGNN (Louis et al., 10.1039/D0CP01474E): attention over neighbors, then over atoms with the composition."""

    architecture: Literal["gatgnn"] = Field(description="GATGNN, a graph attention baseline")
    layers: Positive = Field(3, description="graph attention layers")
    heads: Positive = Field(4, description="attention heads")
    width: Positive = Field(64, description="features per atom and per edge")
    gaussians: int = Field(41, gt=1, description="Gaussians in the expansion of a distance, from 0 to 8 Å")


class E3NNConfig(Section):
    """E3NN for phonon spectra (Chen et al., 10.1002/advs.202004214): equivariant convolutions over edge vectors."""

    architecture: Literal["e3nn"] = Field(description="E3NN, an equivariant baseline; needs the extra e3nn")
    layers: Positive = Field(2, description="gated hidden convolutions; one more produces the output")
    embedding: Positive = Field(64, description="scalar features per atom, from its mass-weighted one-hot element")
    multiplicity: Positive = Field(32, description="number of irreps of each degree and parity in hidden layers")
    max_degree: int = Field(
        1, ge=0, le=3, description="highest degree l of the spherical harmonics and of hidden features"
    )
    radial_functions: Positive = Field(
        10, description="basis functions in the expansion of a distance, from 0 to the cutoff"
    )
    radial_neurons: Positive = Field(
        100, description="width of the network that computes distance-dependent weights of each convolution"
    )
    pooling: Literal["mean", "sum"] = Field("mean", description="how outputs of the atoms are combined")


class VectorConfig(Section):
    """Sizes of equivariant networks that read features of atoms off edge vectors."""

    layers: Positive = Field(3, description="message-passing layers")
    width: Positive = Field(128, description="scalar features, and vector features, per atom")
    gaussians: int = Field(32, gt=1, description="Gaussians in the expansion of a distance, from 0.5 Å to the cutoff")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout rate in message updates and in the head")


class AdditiveConfig(VectorConfig):
    """Equivariant network that predicts one spectrum per atom from edge vectors and masses, and adds them up."""

    architecture: Literal["additive"] = Field(description="equivariant network that adds up spectra of atoms")
    head: Positive = Field(256, description="hidden neurons between the features of an atom and its spectrum")
    peaks: int = Field(12, gt=1, description="Gaussians that make up the spectrum of an atom")
    transport_weight: float = Field(
        0.03, ge=0, description="weight of the Wasserstein distance, in bins, added to the loss; 0 turns it off"
    )
    above_grid: int = Field(
        0,
        ge=0,
        description="hidden neurons of a head for the share of the modes above the grid, which is added to a finished "
        "training (python benchmarks/above_grid.py fit); 0: none",
    )
    expected_error: int = Field(
        0,
        ge=0,
        description="hidden neurons of a head for the error to be expected, which is added to a training that an "
        "ensemble was distilled into (python benchmarks/distillation.py finish); 0: none",
    )


class ProjectedConfig(VectorConfig):
    """Equivariant network for electronic spectra: one non-negative density per atom, added up."""

    architecture: Literal["projected"] = Field(description="equivariant network that adds up densities of atoms")
    head: Positive = Field(256, description="hidden neurons between the features of an atom and its density")
    transport_weight: float = Field(
        0.003, ge=0, description="weight of the Wasserstein distance, in bins, added to the loss; 0 turns it off"
    )


class FeaturesConfig(VectorConfig):
    """Encoder of the equivariant networks, distilled from another model: it predicts that model's features of atoms."""

    architecture: Literal["features"] = Field(
        description="features of atoms from another model; trained on a column with a list of them per crystal, atom "
        "by atom"
    )
    features: Positive = Field(66, description="numbers in the label of an atom")


class GapConfig(Section):
    """Band-gap network: the encoder of Mat2Spec, with the same sizes, and a head for the gap."""

    architecture: Literal["gap"] = Field(
        description="metal or not, and band gap; trained on a column with one number per crystal"
    )
    layers: Positive = Field(3, description="graph attention layers")
    heads: Positive = Field(4, description="attention heads")
    width: Positive = Field(128, description="features per atom and per edge")
    gaussians: int = Field(41, gt=1, description="Gaussians in the expansion of a distance, from 0 to 8 Å")
    head: Positive = Field(128, description="hidden neurons between the vector of a crystal and its gap")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout rate in the head")


class VectorGapConfig(VectorConfig):
    """Band-gap network on the encoder of the equivariant networks, which one that is distilled or pre-trained fits."""

    architecture: Literal["vector-gap"] = Field(
        description="metal or not, and band gap, from edge vectors; trained on a column with one number per crystal"
    )
    head: Positive = Field(128, description="hidden neurons between the features of an atom and the gap")


AnyGapConfig = GapConfig | VectorGapConfig


class MeanConfig(Section):
    """Baseline without learning: the mean spectrum."""

    architecture: Literal["mean"] = Field(description="baseline: the mean of the training spectra")


class ElementalConfig(Section):
    """Baseline without learning: spectra of the elements."""

    architecture: Literal["elemental"] = Field(description="baseline: spectra of the elements, weighted by composition")


def _architecture(values: Any) -> Any:
    """Architecture that a section names; mat2spec if it names none."""
    return (
        values.get("architecture", "mat2spec") if isinstance(values, Mapping) else getattr(values, "architecture", None)
    )


_BY_NAME = Discriminator(
    _architecture,
    custom_error_type="architecture",
    custom_error_message="architecture must be one of "
    "mat2spec, gatgnn, e3nn, additive, projected, mean, elemental, gap, vector-gap, features, ensemble, combined, "
    "gapped",
)

_GAP_BY_NAME = Discriminator(
    _architecture,
    custom_error_type="architecture",
    custom_error_message="architecture must be one of gap, vector-gap",
)

_Single = (
    Annotated[Mat2SpecConfig, Tag("mat2spec")]
    | Annotated[GATGNNConfig, Tag("gatgnn")]
    | Annotated[E3NNConfig, Tag("e3nn")]
    | Annotated[AdditiveConfig, Tag("additive")]
    | Annotated[ProjectedConfig, Tag("projected")]
    | Annotated[MeanConfig, Tag("mean")]
    | Annotated[ElementalConfig, Tag("elemental")]
)


class EnsembleConfig(Section):
    """Several trainings of one network: their mean is the prediction, their disagreement its uncertainty."""

    architecture: Literal["ensemble"] = Field(
        description="mean of several networks; made of finished trainings, not trained itself"
    )
    members: int = Field(gt=1, description="number of networks")
    member: Annotated[_Single, _BY_NAME] = Field(description="settings of each network")


class CombinedConfig(Section):
    """Electronic predictor made of three finished trainings: shape × number of states, and band gap.

    Shape and number of states share one encoder.
    """

    architecture: Literal["combined"] = Field(
        description="electronic spectra with scale and gap; made of finished trainings, not trained itself"
    )
    shape: Mat2SpecConfig = Field(description="network that predicts the shape (normalization sum)")
    scale: Mat2SpecConfig = Field(description="network that predicts the number of states (normalization standard)")
    gap: GapConfig = Field(description="network that predicts metal or not, and the gap")


class GappedConfig(Section):
    """Electronic predictor made of finished trainings: spectra that keep the number of states, and band gap."""

    architecture: Literal["gapped"] = Field(
        description="electronic spectra with gap; made of finished trainings, not trained itself"
    )
    spectrum: Annotated[_Single | Annotated[EnsembleConfig, Tag("ensemble")], _BY_NAME] = Field(
        description="network, or ensemble, that predicts spectra in the unit of the labels"
    )
    gap: Annotated[Annotated[GapConfig, Tag("gap")] | Annotated[VectorGapConfig, Tag("vector-gap")], _GAP_BY_NAME] = (
        Field(description="network that predicts metal or not, and the gap")
    )


NetworkConfig = Annotated[
    _Single
    | Annotated[GapConfig, Tag("gap")]
    | Annotated[VectorGapConfig, Tag("vector-gap")]
    | Annotated[FeaturesConfig, Tag("features")]
    | Annotated[EnsembleConfig, Tag("ensemble")]
    | Annotated[CombinedConfig, Tag("combined")]
    | Annotated[GappedConfig, Tag("gapped")],
    _BY_NAME,
]

NETWORKS: dict[str, type[Section]] = {
    "mat2spec": Mat2SpecConfig,
    "gatgnn": GATGNNConfig,
    "e3nn": E3NNConfig,
    "additive": AdditiveConfig,
    "projected": ProjectedConfig,
    "mean": MeanConfig,
    "elemental": ElementalConfig,
    "gap": GapConfig,
    "vector-gap": VectorGapConfig,
    "features": FeaturesConfig,
    "ensemble": EnsembleConfig,
    "combined": CombinedConfig,
    "gapped": GappedConfig,
}
"""Section of each architecture."""
