"""E3NN, a baseline: gated convolutions over edge vectors with rotation-equivariant features, and one spectrum per atom.

Chen et al., Adv. Sci. 8, 2004214 (2021), 10.1002/advs.202004214, on the package e3nn (Geiger and Smidt,
arXiv:2207.09453). The kind of a feature is its degree and parity: a scalar (0e), a vector (1o), a pseudoscalar or
pseudovector (0o, 1e), and so on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import cos, pi, sin

import torch
from e3nn import o3
from e3nn.math import soft_one_hot_linspace
from e3nn.nn import FullyConnectedNet, Gate
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import relu, silu

from mat2spec.config import E3NNConfig
from mat2spec.elements import atomic_masses
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.scatter import group_mean, group_sum
from mat2spec.structure.graph import CrystalGraph, GraphBatch

SCALAR = o3.Irrep("0e")

SELF_ANGLE = pi / 8
"""An atom and its neighbors are mixed with its sine and cosine, which keep the variance; the package's choice."""

FITTED_GRAPHS = 100
"""Training crystals from which the size of the untrained outputs is computed."""


class E3NN(SpectrumNetwork):
    """E3NN with one spectrum per atom, pooled over the crystal.

    The initial features of an atom are its element, weighted by mass. Unlike in the published code, attributes enter
    only in the self-connection, messages fade with the radial functions, and kinds of features from which the remaining
    layers make no scalar are left out.

    Args:
        config: Sizes.
        cutoff: Distance at which the weight of an edge reaches zero [Å].
        bins: Bins of the spectrum.
        normalization: Name of the scale of its shapes.
        loss: Name of the distance between predicted and true shapes.
    """

    masses: Tensor
    num_neighbors: Tensor
    output_size: Tensor

    def __init__(self, config: E3NNConfig, cutoff: float, bins: int, normalization: str, loss: str) -> None:
        super().__init__(bins, normalization, loss)
        self.cutoff = cutoff
        self.radial_functions = config.radial_functions
        self.pool = {"mean": group_mean, "sum": group_sum}[config.pooling]
        self.register_buffer("masses", torch.from_numpy(atomic_masses()).diag(), persistent=False)
        self.register_buffer("num_neighbors", torch.ones(()))
        self.register_buffer("output_size", torch.ones(()))
        self.embed = nn.Linear(len(self.masses), config.embedding)
        harmonics = o3.Irreps.spherical_harmonics(config.max_degree)
        self.harmonics = o3.SphericalHarmonics(harmonics, normalize=True, normalization="component")
        self.gates = nn.ModuleList(
            _gate(kinds, config.multiplicity) for kinds in _hidden_kinds(harmonics, config.layers)
        )
        attributes, output = (o3.Irreps([(width, SCALAR)]) for width in (config.embedding, bins))
        before = [attributes, *(gate.irreps_out for gate in self.gates)]
        after = [*(gate.irreps_in for gate in self.gates), output]
        self.convolutions = nn.ModuleList(
            Convolution(irreps, attributes, harmonics, irreps_out, config)
            for irreps, irreps_out in zip(before, after, strict=True)
        )

    def fit(self, graphs: Sequence[CrystalGraph], labels: Float[Tensor, "crystals bins"]) -> None:
        """Fit the scale of the labels, the edges per atom, and the size of the untrained outputs.

        Sums over neighbors are divided by the square root of the edges per atom. Masses of 1 to 257 u, which enter at
        each layer, make outputs so large that their softmax is a single bin: outputs are divided by their standard
        deviation. A spectrum that is scaled to its maximum, as in the published code, does not change by it.
        """
        super().fit(graphs, labels)
        edges = sum(graph.num_edges for graph in graphs)
        atoms = sum(len(graph.atomic_numbers) for graph in graphs)
        self.num_neighbors.fill_(edges / atoms)
        with torch.no_grad():
            size = self._pooled(GraphBatch.from_graphs(graphs[:FITTED_GRAPHS])).std()
        self.output_size.copy_(size if size > 0 else torch.ones(()))

    def outputs(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        return self.normalization.activate(self._pooled(graphs) / self.output_size)

    def _pooled(self, graphs: GraphBatch) -> Float[Tensor, "crystals bins"]:
        return self.pool(self.atomic_outputs(graphs), graphs.batch, graphs.num_graphs)

    def atomic_outputs(self, graphs: GraphBatch) -> Float[Tensor, "atoms bins"]:
        """One unconstrained number per atom and bin."""
        edges = self._edges(graphs)
        features = attributes = relu(self.embed(self.masses[graphs.atomic_numbers]))
        for convolution, gate in zip(self.convolutions, self.gates, strict=False):  # the last convolution has no gate
            features = gate(convolution(features, attributes, edges))
        return self.convolutions[-1](features, attributes, edges)

    def _edges(self, graphs: GraphBatch) -> "Edges":
        radial = soft_one_hot_linspace(
            graphs.distances, 0.0, self.cutoff, self.radial_functions, basis="smooth_finite", cutoff=True
        )
        harmonics = self.harmonics(graphs.vectors) / self.num_neighbors.sqrt()
        neighbor, center = graphs.edge_index
        return Edges(neighbor, center, harmonics, radial * self.radial_functions**0.5)


@dataclass(frozen=True)
class Edges:
    """Edges as convolutions use them.

    Args:
        neighbor: Node that sends the message.
        center: Node that receives it.
        harmonics: Spherical harmonics of the direction, divided by the square root of the edges per atom.
        radial: Smooth functions of the distance with mean square one; all are zero at the cutoff.
    """

    neighbor: Int[Tensor, " edges"]
    center: Int[Tensor, " edges"]
    harmonics: Float[Tensor, "edges harmonics"]
    radial: Float[Tensor, "edges functions"]


class Convolution(nn.Module):
    """Sum over neighbors of features × harmonics of the direction, weighted by distance, plus the atom's own features.

    Args:
        irreps_in: Kinds and numbers of an atom's features.
        attributes: Kinds and numbers of its attributes.
        harmonics: Kinds of an edge's harmonics.
        irreps_out: Kinds and numbers of the resulting features.
        config: Sizes of the network that computes weights from the distance.
    """

    own_share: Tensor
    neighbor_share: Tensor

    def __init__(
        self,
        irreps_in: o3.Irreps,
        attributes: o3.Irreps,
        harmonics: o3.Irreps,
        irreps_out: o3.Irreps,
        config: E3NNConfig,
    ) -> None:
        super().__init__()
        self.product = DepthwiseProduct(irreps_in, harmonics, irreps_out)
        self.weigh = FullyConnectedNet(
            [config.radial_functions, config.radial_neurons, self.product.irreps_out.num_irreps], silu
        )
        self.enter = o3.Linear(irreps_in, irreps_in)
        self.leave = o3.Linear(self.product.irreps_out, irreps_out)
        self.keep = o3.FullyConnectedTensorProduct(irreps_in, attributes, irreps_out)
        own = self.keep.output_mask  # zero for kinds that the atom does not have: those come from its neighbors alone
        self.register_buffer("own_share", sin(SELF_ANGLE) * own, persistent=False)
        self.register_buffer("neighbor_share", 1 + (cos(SELF_ANGLE) - 1) * own, persistent=False)

    def forward(
        self, features: Float[Tensor, "atoms features"], attributes: Float[Tensor, "atoms attributes"], edges: Edges
    ) -> Float[Tensor, "atoms outputs"]:
        neighbors = self.enter(features).index_select(0, edges.neighbor)
        messages = self.product(neighbors, edges.harmonics, self.weigh(edges.radial))
        gathered = messages.new_zeros(len(features), messages.shape[1]).index_add(0, edges.center, messages)
        return self.own_share * self.keep(features, attributes) + self.neighbor_share * self.leave(gathered)


class DepthwiseProduct(nn.Module):
    """Product of each feature with each harmonic, along every path that results in a wanted kind.

    The numbers are those of the package's TensorProduct with mode uvu. That class has other buffers after it is copied,
    so that a running mean of the weights could not be saved and loaded, and takes 1.4 times as long (one core, 3,400
    edges, published sizes).

    Args:
        irreps_in: Kinds and numbers of features.
        harmonics: Kinds of an edge's harmonics.
        irreps_out: Wanted kinds.
    """

    def __init__(self, irreps_in: o3.Irreps, harmonics: o3.Irreps, irreps_out: o3.Irreps) -> None:
        super().__init__()
        self.irreps_in, self.harmonics = irreps_in, harmonics
        pairs = product(range(len(irreps_in)), range(len(harmonics)))
        self.paths = sorted(
            (kind, i, j) for i, j in pairs for kind in irreps_in[i].ir * harmonics[j].ir if kind in irreps_out
        )
        self.irreps_out = o3.Irreps([(irreps_in[i].mul, kind) for kind, i, _ in self.paths]).simplify()
        for number, (kind, i, j) in enumerate(self.paths):
            coupling = kind.dim**0.5 * o3.wigner_3j(irreps_in[i].ir.l, harmonics[j].ir.l, kind.l)
            self.register_buffer(f"coupling{number}", coupling, persistent=False)

    def forward(
        self,
        features: Float[Tensor, "edges features"],
        harmonics: Float[Tensor, "edges harmonics"],
        weights: Float[Tensor, "edges weights"],
    ) -> Float[Tensor, "edges products"]:
        shares = weights.split([self.irreps_in[i].mul for _, i, _ in self.paths], dim=1)
        products = []
        for number, ((kind, i, j), share) in enumerate(zip(self.paths, shares, strict=True)):
            mul, ir = self.irreps_in[i]
            feature = features[:, self.irreps_in.slices()[i]].unflatten(1, (mul, ir.dim))
            harmonic = harmonics[:, self.harmonics.slices()[j]]
            weight = share[:, :, None]
            if self.harmonics[j].ir.l == 0:
                coupled = feature * (weight * harmonic[:, :, None])
            else:
                matrix = torch.einsum("ej,ijk->eik", harmonic, self.get_buffer(f"coupling{number}"))
                # the weight multiplies the smaller array
                coupled = (feature * weight) @ matrix if ir.dim <= kind.dim else (feature @ matrix) * weight
            products.append(coupled.flatten(1))
        return torch.cat(products, dim=1)


def _hidden_kinds(harmonics: o3.Irreps, layers: int) -> list[list[o3.Irrep]]:
    """Kinds of each hidden layer: those reached from scalars, and from which the remaining layers reach scalars."""
    reachable = [{SCALAR}]
    for _ in range(layers):
        products = {kind for feature, (_, harmonic) in product(reachable[-1], harmonics) for kind in feature * harmonic}
        reachable.append({kind for kind in products if kind.l <= harmonics.lmax})
    return [sorted(reachable[layer] & reachable[layers + 1 - layer]) for layer in range(1, layers + 1)]


def _gate(kinds: list[o3.Irrep], multiplicity: int) -> Gate:
    """Gate that activates scalars, and scales every other feature by a scalar of its own."""
    scalars, others = (
        o3.Irreps([(multiplicity, kind) for kind in kinds if (kind.l == 0) == scalar]) for scalar in (True, False)
    )
    gates = o3.Irreps([(others.num_irreps, SCALAR)] if others else [])
    activations = [silu if kind.ir.p == 1 else torch.tanh for kind in scalars]
    return Gate(scalars, activations, gates, [torch.sigmoid] * len(gates), others)
