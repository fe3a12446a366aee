"""Evaluation of a checkpoint on labeled crystals."""

import torch

from mat2spec.data.labels.dataset import LabeledCrystals
from mat2spec.dos.metrics import SHAPE_SCALINGS
from mat2spec.errors import TableError
from mat2spec.evaluate.band_gaps import BandGapEvaluation
from mat2spec.evaluate.features import FeatureEvaluation
from mat2spec.evaluate.spectra import SpectrumEvaluation
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.model.features import AtomFeatures
from mat2spec.predict.forward import predict_outputs

AnyEvaluation = SpectrumEvaluation | BandGapEvaluation | FeatureEvaluation


def evaluate(
    checkpoint: Checkpoint, crystals: LabeledCrystals, device: torch.device, *, held_out: bool = True
) -> AnyEvaluation:
    """Predict labeled crystals, for comparison with their labels.

    Args:
        checkpoint: Checkpoint to evaluate.
        crystals: Materials with labels of the kind that it predicts.
        device: Device to compute on.
        held_out: Refuse rows of the checkpoint's training and validation sets. Their structures under other names are
            not refused, as tables hold some materials twice.

    Raises:
        TableError: If `held_out` is set and the checkpoint has seen some of the materials.
    """
    if held_out and (overlap := _training_rows(checkpoint, crystals)):
        example = min(overlap)
        raise TableError(
            f"{len(overlap)} of {len(crystals)} materials ({example}, …) were seen in training; "
            "evaluate on held-out rows"
        )
    network = checkpoint.network
    outputs = predict_outputs(network.to(device), crystals.graphs, device)
    if isinstance(network, AtomFeatures):
        return FeatureEvaluation(crystals, outputs, network.means(crystals.spectra.to(device)).cpu().numpy())
    if not isinstance(network, SpectrumNetwork):
        return BandGapEvaluation(crystals, outputs)
    scalings = ("self", *SHAPE_SCALINGS) if network.normalization.keeps_unit else SHAPE_SCALINGS
    return SpectrumEvaluation(crystals, network.to_densities(outputs), checkpoint.grid, scalings)


def _training_rows(checkpoint: Checkpoint, crystals: LabeledCrystals) -> list[str]:
    """Names of the crystals that are training rows under the same name, and not others that share a name with one."""
    named = (crystal for crystal in crystals.crystals if crystal.material_id in checkpoint.training_ids)
    return [crystal.material_id for crystal in named if checkpoint.has_seen(crystal)]
