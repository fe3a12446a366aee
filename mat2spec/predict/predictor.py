"""A checkpoint on a device: from structures to spectra, `mat2spec.load("phdos").predict(structure)`."""

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
import torch
from jaxtyping import Float32

from mat2spec.data.materials.schema import COLUMNS, materials_table
from mat2spec.dos.grid import Spectra
from mat2spec.errors import CheckpointError, ConfigError, StructureError
from mat2spec.model.above_grid import OUTPUTS, disagreement_of_shares, modes_above_grid
from mat2spec.model.base import Network, SpectrumNetwork
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.model.combined import Combined
from mat2spec.model.ensemble import Ensemble
from mat2spec.model.features import AtomFeatures
from mat2spec.model.gapped import Gapped
from mat2spec.predict.forward import default_edges_per_batch, predict_outputs_of_each
from mat2spec.predict.inputs import OneStructure, StructureFile, read_crystals
from mat2spec.predict.spectrum import Spectrum
from mat2spec.predict.table import Prediction, prediction_table
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.empty_space import empty_radius
from mat2spec.structure.graph import CrystalGraph, build_graph
from mat2spec.structure.symmetry import primitive_nsites


def spectrum_network(checkpoint: Checkpoint) -> SpectrumNetwork:
    """Return the network of a checkpoint that predicts spectra.

    Raises:
        CheckpointError: If it predicts none, or electronic ones without their number of states.
    """
    network, name = checkpoint.network, checkpoint.card.name
    way_out = "combine it with networks that do (configs/tables/edos-pretraining.yaml, configs/tables/edos.yaml)"
    if isinstance(network, AtomFeatures):
        raise CheckpointError(f"{name}: predicts features, not spectra; train from it with start_with encoder")
    if not isinstance(network, SpectrumNetwork):
        raise CheckpointError(f"{name}: predicts band gaps, not spectra; {way_out}")
    if checkpoint.grid.per_cell and not network.normalization.keeps_unit:
        raise CheckpointError(f"{name}: predicts shapes without a number of states; {way_out}")
    return network


def find_device(name: torch.device | str | None = None) -> torch.device:
    """Return a device that can compute; by default a GPU if there is one, else the CPU.

    Raises:
        ConfigError: If there is no such device here.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # which of them depends on how torch was built
        reason = str(error).splitlines()[0].partition(". ")[0]
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        available = ", ".join(["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])])
        raise ConfigError(f"device {name}: cannot be used here ({reason}); available: {available}") from None
    return device


class Predictor:
    """A checkpoint on a device, ready to predict spectra of structures.

    Args:
        checkpoint: Its network, graph settings and grid.
        device: Where to compute; default: a GPU if there is one, else the CPU.
        edges_per_batch: Most edges in one forward pass; default: what suits the device.

    Raises:
        CheckpointError: If it predicts no spectra, or electronic ones without their number of states.
        ConfigError: If there is no such device.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device | str | None = None, edges_per_batch: int | None = None
    ) -> None:
        network = spectrum_network(checkpoint)
        self.checkpoint = checkpoint
        self.device = find_device(device)
        self.edges_per_batch = edges_per_batch or default_edges_per_batch(self.device)
        self._network = network.to(self.device)

    def __repr__(self) -> str:
        return f"Predictor({self.checkpoint.card.name}, {self.checkpoint.grid.name}, {self.device})"

    @overload
    def predict(self, structures: OneStructure) -> Spectrum: ...

    @overload
    def predict(self, structures: StructureFile) -> Spectrum | list[Spectrum]: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, structures: Iterable[OneStructure | StructureFile]) -> list[Spectrum]: ...

    def predict(
        self, structures: OneStructure | StructureFile | Iterable[OneStructure | StructureFile]
    ) -> Spectrum | list[Spectrum]:
        """Predict the spectrum of one structure, or of each of several.

        Args:
            structures: A pymatgen Structure, ASE Atoms, a Crystal, the path of a structure file (CIF, POSCAR, extXYZ,
                JSON, also compressed), or a sequence of these.

        Returns:
            One spectrum for one structure; a list for a sequence and for a file with several structures.

        Raises:
            StructureError: If a file cannot be read, or a structure is disordered or cannot become a graph.
            TableError: If a file is a table or an archive.
        """
        crystals, is_single = read_crystals(structures)
        spectra = self._predict_rows(crystals)
        return spectra[0] if is_single else spectra

    def predict_spectra(self, crystals: Sequence[Crystal]) -> Spectra:
        """Predict spectra as an array.

        Returns:
            One row per crystal [phonons: states per cm⁻¹ per atom, integral 3 × (1 − share above the grid); electrons:
            states/eV per primitive cell].

        Raises:
            StructureError: If a crystal cannot become a graph.
        """
        spectra = self.predict_graphs(self._graphs(crystals)).spectra
        if not self.checkpoint.grid.per_cell:
            return spectra
        return spectra * np.array([primitive_nsites(crystal) for crystal in crystals], np.float32)[:, None]

    def predict_graphs(self, graphs: Sequence[CrystalGraph]) -> Prediction:
        """Predict per atom, from graphs that were built with the checkpoint's graph settings."""
        return self._predict(self._network, graphs)

    def _predict(self, network: SpectrumNetwork, graphs: Sequence[CrystalGraph]) -> Prediction:
        match network:
            case Ensemble():
                return self._predict_ensemble(network, graphs)
            case Gapped():
                return self._predict(network.spectrum, graphs)._replace(gaps=self._outputs([network.gap], graphs)[0])
        (outputs,) = self._outputs([network], graphs)
        gaps = outputs[:, network.bins :] if isinstance(network, Combined) else None
        spread = outputs[:, -1] if network.predicts_error else None
        return self._cut(network, Prediction(self._to_states(outputs), spread, gaps), [outputs])

    def _predict_ensemble(self, ensemble: Ensemble, graphs: Sequence[CrystalGraph]) -> Prediction:
        """Return the mean of the members, and the error to be expected from their disagreement."""
        outputs = self._outputs(list(ensemble.members), graphs)
        spectra = self._to_states(np.mean(outputs, axis=0))
        disagreement = np.mean([np.abs(self._to_states(one) - spectra).mean(axis=1) for one in outputs], axis=0)
        offset, slope = ensemble.calibration.tolist()
        return self._cut(ensemble, Prediction(spectra, spread=offset + slope * disagreement), outputs)

    def _cut(
        self,
        network: SpectrumNetwork,
        prediction: Prediction,
        outputs: Sequence[Float32[np.ndarray, "crystals outputs"]],
    ) -> Prediction:
        """Take from spectra of integral 3 the share above the grid, if the network predicts it.

        If a share is wrong by δ, its spectrum is wrong by δ × 3 states: δ times the mean density is added to the
        expected error, where δ is what the record in the card expects.

        Args:
            network: Its outputs say whether it predicts the share.
            prediction: As if all modes were on the grid.
            outputs: Those of each member of an ensemble, or of the network.
        """
        record = self.checkpoint.card.above_grid
        if not network.predicts_above_grid or record is None:
            return prediction
        members = np.stack([one[:, network.bins : network.bins + OUTPUTS] for one in outputs])
        above = modes_above_grid(members, self.checkpoint.grid.centers[-1], record.threshold)
        spectra, spread, shares = prediction.spectra, prediction.spread, above.shares
        if spread is not None:
            error = record.error_per_disagreement * disagreement_of_shares(members) + record.error_per_share * shares
            spread = (1 - shares) * spread + error * spectra.mean(axis=1)
        return prediction._replace(spectra=(1 - shares)[:, None] * spectra, spread=spread, above=above)

    def _predict_rows(self, crystals: list[Crystal]) -> list[Spectrum]:
        """Predict crystals by way of the predictions table, so that a spectrum's row is that of a screening."""
        prediction = self.predict_graphs(self._graphs(crystals))
        for crystal, spectrum in zip(crystals, prediction.spectra, strict=True):
            if not np.isfinite(spectrum).all():
                raise StructureError(crystal.material_id, "the network predicts a spectrum that is not finite")
        nsites_primitive = [primitive_nsites(crystal) for crystal in crystals]
        inputs = materials_table(crystals).select(list(COLUMNS))
        radii = [empty_radius(crystal) for crystal in crystals]
        table = prediction_table(inputs, crystals, nsites_primitive, radii, prediction, self.checkpoint)
        return [Spectrum(self.checkpoint.grid, row) for row in table.to_pylist()]

    def _graphs(self, crystals: Sequence[Crystal]) -> list[CrystalGraph]:
        return [build_graph(crystal, self.checkpoint.card.config.graph) for crystal in crystals]

    def _outputs(
        self, networks: Sequence[Network], graphs: Sequence[CrystalGraph]
    ) -> list[Float32[np.ndarray, "crystals outputs"]]:
        return predict_outputs_of_each(networks, graphs, self.device, self.edges_per_batch)

    def _to_states(self, outputs: Float32[np.ndarray, "crystals outputs"]) -> Spectra:
        return self.checkpoint.grid.to_states(self._network.to_densities(outputs)).astype(np.float32)
