"""Evaluation of a checkpoint on labeled crystals."""

import torch

from mat2spec.data.labels.dataset import LabeledCrystals
from mat2spec.dos.metrics import SHAPE_SCALINGS
from mat2spec.errors import TableError
from mat2spec.evaluate.band_gaps import BandGapEvaluation
from mat2spec.evaluate.spectra import SpectrumEvaluation
from mat2spec.model.base import SpectrumNetwork
from mat2spec.model.checkpoint import Checkpoint
from mat2spec.predict.forward import predict_outputs

AnyEvaluation = SpectrumEvaluation | BandGapEvaluation


def evaluate(
    checkpoint: Checkpoint, crystals: LabeledCrystals, device: torch.device, *, held_out: bool = True
) -> AnyEvaluation:
    """Predict labeled crystals, for comparison with their labels.

    Args:
        checkpoint: Checkpoint to evaluate.
        crystals: Materials with labels of the kind that it predicts.
        device: Device to compute on.
        held_out: Refuse materials of the checkpoint's training and validation sets.

    Raises:
        TableError: If `held_out` is set and the checkpoint has seen some of the materials.
    """
    if held_out and (overlap := checkpoint.training_ids.intersection(crystals.material_ids)):
        example = min(overlap)
        raise TableError(
            f"{len(overlap)} of {len(crystals)} materials ({example}, …) were seen in training; "
            "evaluate on held-out rows"
        )
    network = checkpoint.network
    outputs = predict_outputs(network.to(device), crystals.graphs, device)
    if not isinstance(network, SpectrumNetwork):
        return BandGapEvaluation(crystals, outputs)
    scalings = ("self", *SHAPE_SCALINGS) if network.normalization.keeps_unit else SHAPE_SCALINGS
    return SpectrumEvaluation(crystals, network.to_densities(outputs), checkpoint.grid, scalings)
