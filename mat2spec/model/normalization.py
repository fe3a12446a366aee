"""The scale on which a network learns spectra, and the way back to states."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from mat2spec.dos.grid import Spectra


class Normalization(nn.Module, ABC):
    """A scale of spectra. What it has to know of the training labels is kept with the weights of the network."""

    keeps_unit = False
    """Whether densities come out in the unit of the labels; if not, only their shape means something."""

    def fit(self, labels: Float[Tensor, "crystals bins"]) -> None:
        """Learn from the training labels what the scale needs; most need nothing."""

    @abstractmethod
    def normalize(self, labels: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        """Scale labels to what is learnt."""

    @abstractmethod
    def activate(self, outputs: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        """Map the network's free outputs to that scale."""

    def denormalize(self, outputs: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        """Give non-negative densities, in the unit of the labels where the scale keeps it."""
        return outputs

    def densities(self, outputs: Spectra) -> Spectra:
        """Do what `denormalize` does to arrays."""
        return self.denormalize(torch.from_numpy(outputs)).numpy()


class SumNormalization(Normalization):
    """The densities of a spectrum add to 1: only its shape is learnt, and a softmax over bins predicts it.

    A spectrum of zeros has no shape and stays zero.
    """

    def normalize(self, labels: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        total = labels.sum(dim=1, keepdim=True)
        return labels / total.where(total > 0, 1.0)

    def activate(self, outputs: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        return outputs.softmax(dim=1)


class MaxNormalization(Normalization):
    """The largest density of a spectrum is 1; negative outputs are cut and the rest is divided by its maximum, as in the published code."""

    def normalize(self, labels: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        largest = labels.amax(dim=1, keepdim=True)
        return labels / largest.where(largest > 0, 1.0)

    def activate(self, outputs: Float[Tensor, "crystals bins"]) -> Float[Tensor, "crystals bins"]:
        positive = relu(outputs)
        return positive / (positive.amax(dim=1, keepdim=True) + 1e-8)


class StandardNormalization(Normalization):
    """Each bin has mean 0 and variance 1 over the training labels; a bin that is the same in all of them is only shifted.

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


def make_normalization(name: str, bins: int) -> Normalization:
    """Make the scale that a config names: sum, max or standard."""
    return (
        StandardNormalization(bins)
        if name == "standard"
        else {"sum": SumNormalization, "max": MaxNormalization}[name]()
    )
