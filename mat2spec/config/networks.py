"""The networks that can be trained, and their sizes."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from mat2spec.config.base import Positive, Section


class Mat2SpecConfig(Section):
    """Mat2Spec (Kong et al., 10.1038/s41467-022-28543-x); the defaults are the sizes of the published code."""

    architecture: Literal["mat2spec"] = Field("mat2spec", description="the paper's network")
    preset: Literal["corrected", "original"] = Field(
        "corrected",
        description="original: draws at test time, pairs Gaussians and contrasts materials as the published code does",
    )
    layers: Positive = Field(3, description="graph attention layers")
    heads: Positive = Field(4, description="attention heads")
    width: Positive = Field(128, description="features of an atom and of an edge")
    gaussians: int = Field(41, gt=1, description="Gaussians that expand a distance, from 0 to 8 Å")
    components: Positive = Field(10, description="Gaussians in the crystal's mixture")
    latent: Positive = Field(128, description="dimensions of the mixtures")
    representation: Positive = Field(512, description="width of the translator and the predictor")
    projection: Positive = Field(1024, description="dimensions in which crystals and spectra are contrasted")
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout before the mixtures")
    alignment_weight: float = Field(
        1.1, ge=0, description="weight of the divergence between the two mixtures; 0 leaves it out"
    )
    contrastive_weight: float = Field(
        0.1, ge=0, description="weight of the contrastive loss; 0 leaves it and the projector out"
    )


class GATGNNConfig(Section):
    """GATGNN (Louis et al., 10.1039/D0CP01474E): attention over neighbours, then over atoms beside the composition."""

    architecture: Literal["gatgnn"] = Field(description="graph attention baseline")
    layers: Positive = Field(3, description="graph attention layers")
    heads: Positive = Field(4, description="attention heads")
    width: Positive = Field(64, description="features of an atom and of an edge")
    gaussians: int = Field(41, gt=1, description="Gaussians that expand a distance, from 0 to 8 Å")


class E3NNConfig(Section):
    """E3NN for phonon spectra (Chen et al., 10.1002/advs.202004214): equivariant convolutions over edge vectors."""

    architecture: Literal["e3nn"] = Field(description="equivariant baseline; needs the extra e3nn")
    layers: Positive = Field(2, description="gated hidden convolutions; one more makes the output")
    embedding: Positive = Field(64, description="scalar features of an atom, from its mass-weighted one-hot element")
    multiplicity: Positive = Field(32, description="irreps of each degree and parity in hidden layers")
    max_degree: int = Field(
        1, ge=0, le=3, description="highest degree l of the spherical harmonics and of hidden features"
    )
    radial_functions: Positive = Field(10, description="functions that expand a distance, from 0 to the cutoff")
    radial_neurons: Positive = Field(100, description="width of the network that weighs each convolution by distance")
    pooling: Literal["mean", "sum"] = Field("mean", description="of the atoms' outputs")


class AdditiveConfig(Section):
    """Vectors of edges, masses of atoms, and one spectrum per atom that add to the crystal's."""

    architecture: Literal["additive"] = Field(description="equivariant network with atom-projected spectra")
    layers: Positive = Field(3, description="message-passing layers")
    width: Positive = Field(128, description="scalar features of an atom, and vectors of it")
    gaussians: int = Field(32, gt=1, description="Gaussians that expand a distance, from 0.5 Å to the cutoff")
    head: Positive = Field(256, description="neurons between an atom's features and its spectrum")
    peaks: int = Field(12, gt=1, description="Gaussians that make up an atom's spectrum")
    transport_weight: float = Field(
        0.03, ge=0, description="weight of the Wasserstein distance, in bins, beside the loss; 0 leaves it out"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout of updates and of the head")


class GapConfig(Section):
    """Mat2Spec's encoder and a head for the band gap; sizes of the encoder as there."""

    architecture: Literal["gap"] = Field(
        description="metal or not, and the band gap, from a column with one number per crystal"
    )
    layers: Positive = Field(3, description="graph attention layers")
    heads: Positive = Field(4, description="attention heads")
    width: Positive = Field(128, description="features of an atom and of an edge")
    gaussians: int = Field(41, gt=1, description="Gaussians that expand a distance, from 0 to 8 Å")
    head: Positive = Field(128, description="neurons between a crystal's vector and its gap")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in the head")


class MeanConfig(Section):
    """A baseline without learning."""

    architecture: Literal["mean"] = Field(description="the mean of the training spectra")


class ElementalConfig(Section):
    """A baseline without learning."""

    architecture: Literal["elemental"] = Field(description="spectra of the elements, weighted by composition")


def _architecture(values: Any) -> Any:
    """Name of the network that a section describes; one that names none is Mat2Spec's."""
    return (
        values.get("architecture", "mat2spec") if isinstance(values, Mapping) else getattr(values, "architecture", None)
    )


_BY_NAME = Discriminator(
    _architecture,
    custom_error_type="architecture",
    custom_error_message="architecture must be one of mat2spec, gatgnn, e3nn, additive, mean, elemental, gap, ensemble, combined",
)

_Single = (
    Annotated[Mat2SpecConfig, Tag("mat2spec")]
    | Annotated[GATGNNConfig, Tag("gatgnn")]
    | Annotated[E3NNConfig, Tag("e3nn")]
    | Annotated[AdditiveConfig, Tag("additive")]
    | Annotated[MeanConfig, Tag("mean")]
    | Annotated[ElementalConfig, Tag("elemental")]
)


class EnsembleConfig(Section):
    """Several trainings of one network: their mean predicts, their disagreement says how far off it may be."""

    architecture: Literal["ensemble"] = Field(
        description="mean of several networks; made of finished trainings, not trained itself"
    )
    members: int = Field(gt=1, description="how many")
    member: Annotated[_Single, _BY_NAME] = Field(description="what each of them is")


class CombinedConfig(Section):
    """Shape × number of states, and the gap: three finished trainings, the first two with one encoder."""

    architecture: Literal["combined"] = Field(
        description="electronic spectra with their scale and gap; made of finished trainings"
    )
    shape: Mat2SpecConfig = Field(description="gives shapes (normalization sum)")
    scale: Mat2SpecConfig = Field(description="gives the number of states (normalization standard)")
    gap: GapConfig = Field(description="gives metal or not, and the gap")


NetworkConfig = Annotated[
    _Single
    | Annotated[GapConfig, Tag("gap")]
    | Annotated[EnsembleConfig, Tag("ensemble")]
    | Annotated[CombinedConfig, Tag("combined")],
    _BY_NAME,
]

NETWORKS: dict[str, type[Section]] = {
    "mat2spec": Mat2SpecConfig,
    "gatgnn": GATGNNConfig,
    "e3nn": E3NNConfig,
    "additive": AdditiveConfig,
    "mean": MeanConfig,
    "elemental": ElementalConfig,
    "gap": GapConfig,
    "ensemble": EnsembleConfig,
    "combined": CombinedConfig,
}
"""Sections by architecture."""
