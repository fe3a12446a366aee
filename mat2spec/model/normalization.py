"""Scales on which networks learn spectra, and the conversion back to densities."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from mat2spec.dos.grid import Spectra


class Normalization(nn.Module, ABC):
    """A scale of spectra. Its statistics of the training labels are stored with the weights of the network."""

    keeps_unit = False
    """Whether densities have the unit of the labels; if not, only their shape is meaningful."""

    def fit(self, labels: Float[Tensor, "crystals bins"]) -> None:
        """Fit the scale to the training labels; most scales need nothing."""

    @abstractmethod
    def normalize(self, labels: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        """Scale labels to what the network learns."""

    @abstractmethod
    def activate(self, outputs: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        """Map the network's unconstrained outputs to this scale."""

    def denormalize(self, outputs: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        """Convert to non-negative densities, in the unit of the labels where the scale keeps it."""
        return outputs

    def densities(self, outputs: Spectra) -> Spectra:
        """Apply `denormalize` to an array."""
        return self.denormalize(torch.from_numpy(outputs)).numpy()


class SumNormalization(Normalization):
    """The densities of a spectrum add up to 1: only its shape is learned, and a softmax over bins predicts it.

    A spectrum of zeros has no shape and stays zero.
    """

    def normalize(self, labels: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        total = labels.sum(dim=1, keepdim=True)
        return labels / total.where(total > 0, 1.0)

    def activate(self, outputs: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        return outputs.softmax(dim=1)


class MaxNormalization(Normalization):
    """The largest density of a spectrum is 1.

    Negative outputs are clipped and the rest is divided by its maximum, as in the published code.
    """

    def normalize(self, labels: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        largest = labels.amax(dim=1, keepdim=True)
        return labels / largest.where(largest > 0, 1.0)

    def activate(self, outputs: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        positive = relu(outputs)
        return positive / (positive.amax(dim=1, keepdim=True) + 1e-8)


class StandardNormalization(Normalization):
    """Each bin has mean 0 and variance 1 over the training labels; a bin that is equal in all of them is only shifted.

    Args:
        bins: Bins of the spectrum.
    """

    keeps_unit = True
    mean: Tensor
    std: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(bins))
        self.register_buffer("std", torch.ones(bins))

    def fit(self, labels: Float[Tensor, "crystals bins"]) -> None:
        spread = labels.std(dim=0) if len(labels) > 1 else torch.zeros_like(self.std)
        self.mean.copy_(labels.mean(dim=0))
        self.std.copy_(spread.where(spread > 0, 1.0))

    def normalize(self, labels: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        return (labels - self.mean) / self.std

    def activate(self, outputs: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        return outputs

    def denormalize(self, outputs: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        return (outputs * self.std.to(outputs.device) + self.mean.to(outputs.device)).clamp(min=0)


class NoNormalization(Normalization):
    """The scale of the labels; a softplus keeps densities positive."""

    keeps_unit = True

    def normalize(self, labels: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        return labels

    def activate(self, outputs: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        return softplus(outputs)


def make_normalization(name: str, bins: int) -> Normalization:
    """Make the scale that a config names: sum, max, standard or none."""
    match name:
        case "sum":
            return SumNormalization()
        case "max":
            return MaxNormalization()
        case "standard":
            return StandardNormalization(bins)
    return NoNormalization()
