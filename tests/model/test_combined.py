"""Shape × number of states, and the gap: three checkpoints as one, of which the first two share an encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import mean_absolute_error

from mat2spec.config import DataConfig, GapConfig, GraphConfig, Mat2SpecConfig, TrainConfig
from mat2spec.data.labels.dataset import LabeledSplits, read_labels
from mat2spec.dos.grid import EDOS_GRID
from mat2spec.errors import CheckpointError
from mat2spec.model.base import Network
from mat2spec.model.checkpoint import WEIGHTS, Checkpoint, TrainingRecord, write_checkpoint
from mat2spec.model.combined import Combined
from mat2spec.model.registry import build_network
from mat2spec.model.training_structures import NO_STRUCTURES
from mat2spec.predict.forward import predict_outputs
from mat2spec.predict.predictor import Predictor
from mat2spec.structure.crystal import Crystal
from mat2spec.structure.graph import CrystalGraph, GraphBatch, build_graph
from mat2spec.train.ensembling import write_combined
from mat2spec.train.result import CHECKPOINT

CPU = torch.device("cpu")


SINGLE = 1e-5
"""Relative to the largest density: float32 sums in another order."""

INVARIANCE = 1e-4
"""The same through two networks whose errors multiply; other crystals differ by 1e-1."""

SHAPE = Mat2SpecConfig(layers=2, heads=2, width=16, components=3, latent=8, representation=32, projection=32)
SCALE = SHAPE.model_copy(update={"representation": 24})
GAP = GapConfig(architecture="gap", layers=1, heads=3, width=24, head=24)
"""With an encoder of its own, of other sizes."""


@pytest.fixture(scope="module")
def labels(bundled: Path, tmp_path_factory: pytest.TempPathFactory) -> LabeledSplits:
    """Fifty electronic spectra."""
    path = tmp_path_factory.mktemp("labels") / "edos.parquet"
    table = pq.read_table(bundled.with_name("edos_gpaw.parquet"))
    pq.write_table(table.take(pa.array(np.linspace(0, len(table) - 1, 50, dtype=int))), path)
    return read_labels(path, DataConfig(table=str(path), label="edos", fold=1), GraphConfig(), EDOS_GRID)


def config_of(
    model: Mat2SpecConfig | GapConfig, normalization: str = "sum", loss: str = "kl", **changes: Any
) -> TrainConfig:
    data = DataConfig(table="edos.parquet", label="edos", fold=1)
    return TrainConfig(grid="edos", normalization=normalization, loss=loss, data=data, model=model).model_copy(
        update=changes
    )


@pytest.fixture(scope="module")
def trained(labels: LabeledSplits) -> dict[str, Network]:
    """Three networks of random weights, with BatchNorm statistics of real crystals; two share an encoder."""
    torch.manual_seed(0)
    networks = {
        "shape": build_network(config_of(SHAPE)),
        "scale": build_network(config_of(SCALE, "standard", "mae")),
        "gap": build_network(config_of(GAP)),
    }
    gap = networks["gap"]
    for network in (networks["shape"], gap):
        for norm in (module for module in network.encoder.modules() if isinstance(module, torch.nn.BatchNorm1d)):
            norm.momentum = 1.0
        with torch.no_grad():
            network.encoder(GraphBatch.from_graphs(labels.train.graphs))
    networks["scale"].encoder.load_state_dict(networks["shape"].encoder.state_dict())
    for part, spread in (("shape", 3.0), ("scale", 0.5)):
        networks[part].fit(labels.train.graphs, labels.train.spectra)
        torch.nn.init.normal_(networks[part].predictor, std=spread)
    torch.nn.init.normal_(gap.head[-1].weight, std=2.0)
    gap.eval()
    with torch.no_grad():
        gap.head[-1].bias -= gap.head(gap.encoder(GraphBatch.from_graphs(labels.train.graphs))).median(dim=0).values
    return {name: network.eval() for name, network in networks.items()}


Write = Callable[..., Checkpoint]


@pytest.fixture(scope="module")
def write(
    trained: dict[str, Network], training_record: TrainingRecord, labels: LabeledSplits, tmp_path_factory
) -> Write:
    """Write a part as a finished training leaves it, perhaps with other settings or weights."""

    def write_part(
        role: str, config: TrainConfig | None = None, weights: dict[str, torch.Tensor] | None = None
    ) -> Checkpoint:
        configs = {"shape": config_of(SHAPE), "scale": config_of(SCALE, "standard", "mae"), "gap": config_of(GAP)}
        directory = tmp_path_factory.mktemp("parts") / role
        ids = ["gap-1", "gap-2"] if role == "gap" else [*labels.train.material_ids, *labels.valid.material_ids]
        write_checkpoint(
            directory,
            role,
            config or configs[role],
            weights or trained[role].state_dict(),
            training_record,
            ids,
            NO_STRUCTURES,
        )
        return Checkpoint.load(directory)

    return write_part


@pytest.fixture(scope="module")
def parts(write: Write) -> dict[str, Checkpoint]:
    return {role: write(role) for role in ("shape", "scale", "gap")}


@pytest.fixture(scope="module")
def assembled(parts, labels, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """Directory and result of the three combined."""
    output = tmp_path_factory.mktemp("combined")
    return output, write_combined(output, "combined", **parts, splits=labels)


@pytest.fixture(scope="module")
def combined(assembled) -> Checkpoint:
    return Checkpoint.load(assembled[0] / CHECKPOINT)


@pytest.fixture(scope="module")
def by_hand(trained: dict[str, Network]) -> Callable[[list[CrystalGraph]], np.ndarray]:
    """Densities per atom from the parts, one by one."""

    def predict(graphs: list[CrystalGraph]) -> np.ndarray:
        scale = trained["scale"]
        standardized = predict_outputs(scale, graphs, CPU).astype(float)
        mean, std = (getattr(scale.normalization, name).double().numpy() for name in ("mean", "std"))
        densities = standardized * std + mean
        assert (densities < 0).any(), "some densities are negative and must not count"
        densities = np.maximum(densities, 0)
        return predict_outputs(trained["shape"], graphs, CPU) * densities.sum(axis=1, keepdims=True)

    return predict


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(CheckpointError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def doubled(crystal: Crystal) -> Crystal:
    """The same crystal in a cell of twice the length along a."""
    frac_coords = np.concatenate([crystal.frac_coords, crystal.frac_coords + np.array([1, 0, 0])]) / [2, 1, 1]
    return Crystal(
        crystal.material_id, np.tile(crystal.atomic_numbers, 2), crystal.lattice * [[2], [1], [1]], frac_coords
    )


def test_spectrum_is_the_shape_times_the_number_of_states_of_the_scale(combined, labels, by_hand):
    predicted = Predictor(combined, CPU).predict_graphs(labels.test.graphs).spectra
    expected = by_hand(labels.test.graphs)
    np.testing.assert_allclose(predicted, expected, atol=SINGLE * expected.max())
    assert np.ptp(expected.sum(axis=1)) > 0.1, "crystals differ in their number of states"
    assert np.ptp(expected / expected.sum(axis=1, keepdims=True), axis=0).max() > 0.01, "and in their shapes"


def test_gaps_are_those_of_the_gap_network(combined, trained, labels):
    predicted = Predictor(combined, CPU).predict_graphs(labels.test.graphs)
    assert predicted.gaps is not None
    np.testing.assert_allclose(predicted.gaps, predict_outputs(trained["gap"], labels.test.graphs, CPU), rtol=SINGLE)
    assert np.ptp(predicted.gaps, axis=0).min() > 0.01, "crystals differ in their gaps"
    assert predicted.spread is None


def test_prediction_is_in_states_per_primitive_cell(combined, labels, by_hand):
    """All bundled cells are primitive."""
    predicted = Predictor(combined, CPU).predict_spectra(labels.test.crystals)
    sizes = np.array([len(crystal) for crystal in labels.test.crystals])
    expected = by_hand(labels.test.graphs) * sizes[:, None]
    np.testing.assert_allclose(predicted, expected, atol=SINGLE * expected.max())
    assert len(set(sizes)) > 2


def test_supercell_has_the_spectrum_of_its_primitive_cell(combined, labels):
    predictor = Predictor(combined, CPU)
    once, twice = (
        predictor.predict_spectra(crystals)
        for crystals in (labels.test.crystals, [doubled(c) for c in labels.test.crystals])
    )
    np.testing.assert_allclose(twice, once, atol=INVARIANCE * once.max())


def test_no_crystals_have_no_spectra(combined):
    assert Predictor(combined, CPU).predict_spectra([]).shape == (0, 128)


def test_checkpoint_holds_the_shared_encoder_once_and_nothing_that_only_training_needs(assembled, parts, trained):
    weights = load_file(assembled[0] / CHECKPOINT / WEIGHTS)
    assert {name.split(".")[0] for name in weights} == {"normalization", "shape", "scale", "gap"}
    assert not [name for name in weights if "spectrum_mixture" in name or "projector" in name]
    assert {name.split(".")[0] for name in weights if ".encoder." in name} == {"shape", "gap"}
    for role, network in trained.items():
        for name, tensor in network.state_dict().items():
            if f"{role}.{name}" in weights:
                assert weights[f"{role}.{name}"].equal(tensor), f"{role}.{name}"
    assert weights["scale.normalization.std"].equal(trained["scale"].normalization.std)


def test_combining_leaves_the_parts_as_they_were(assembled, parts, trained):
    for role, network in trained.items():
        assert parts[role].network.state_dict().keys() == network.state_dict().keys()


def test_what_the_spectra_were_fitted_to_was_seen_in_training_but_what_the_gaps_were_was_not(combined, labels, parts):
    assert combined.training_ids == {*labels.train.material_ids, *labels.valid.material_ids}
    assert combined.card.training.parents == {role: part.fingerprint for role, part in parts.items()}


def test_result_is_that_of_the_predictions_in_their_own_unit(assembled, combined, labels):
    rows = pq.read_table(assembled[0] / "test.parquet").to_pylist()
    predicted = np.array([row["spectrum_predicted"] for row in rows])
    np.testing.assert_allclose(
        predicted, Predictor(combined, CPU).predict_spectra(labels.test.crystals), atol=SINGLE * predicted.max()
    )
    true = labels.test.spectra.numpy() * labels.test.cell_sizes[:, None]
    scores = assembled[1]["test"]
    assert list(scores) == ["self", "true-sum", "unit-max"]
    assert scores["self"]["mae"] == pytest.approx(mean_absolute_error(true, predicted), rel=SINGLE)
    scaled = predicted * true.sum(axis=1, keepdims=True) / predicted.sum(axis=1, keepdims=True)
    assert scores["true-sum"]["mae"] == pytest.approx(mean_absolute_error(true, scaled), rel=SINGLE)


@pytest.mark.parametrize("role", ["shape", "scale"])
@pytest.mark.parametrize("name", ["encoder.embed_atoms.weight", "encoder.norms.0.running_mean"])
def test_shape_and_scale_with_different_encoders_are_refused(parts, write, trained, labels, tmp_path, role, name):
    """Weights, and statistics of BatchNorm."""
    weights = trained[role].state_dict()
    other = write(role, weights=weights | {name: weights[name] + 1e-3})
    message = refusal(lambda: write_combined(tmp_path, "bad", **parts | {role: other}, splits=labels))
    assert message.startswith("scale: its encoder differs from that of shape")
    assert all(word in message for word in ("start_from shape", "start_with encoder", "freeze_encoder"))
    assert not list(tmp_path.iterdir())


def test_encoder_of_another_size_is_refused(parts, write, labels, tmp_path):
    config = config_of(SCALE.model_copy(update={"layers": 3}), "standard", "mae")
    torch.manual_seed(0)
    other = write("scale", config, build_network(config).state_dict())
    message = refusal(lambda: write_combined(tmp_path, "bad", **parts | {"scale": other}, splits=labels))
    assert "its encoder differs from that of shape" in message


@pytest.mark.parametrize(
    ("role", "config", "needs"),
    [
        ("shape", config_of(SHAPE, "standard", "mae"), "architecture mat2spec, normalization sum"),
        ("shape", config_of(SHAPE, "max", "mse"), "architecture mat2spec, normalization sum"),
        ("scale", config_of(SCALE, "sum", "kl"), "architecture mat2spec, normalization standard"),
        ("scale", config_of(GAP), "architecture mat2spec, normalization standard"),
        ("shape", config_of(GAP), "architecture mat2spec, normalization sum"),
        ("gap", config_of(SHAPE), "architecture gap"),
    ],
)
def test_part_that_is_not_what_it_is_taken_for_is_refused(parts, write, labels, tmp_path, role, config, needs):
    torch.manual_seed(0)
    other = write(role, config, build_network(config).state_dict())
    message = refusal(lambda: write_combined(tmp_path, "bad", **parts | {role: other}, splits=labels))
    assert message == f"{role}: cannot be the {role} of a combined network, which needs {needs}"


@pytest.mark.parametrize("role", ["scale", "gap"])
def test_parts_on_different_grids_or_graphs_are_refused(parts, write, labels, tmp_path, role):
    own = {"scale": config_of(SCALE, "standard", "mae"), "gap": config_of(GAP)}[role]
    for name, value in (("grid", "phdos"), ("graph", GraphConfig(neighbors=8))):
        config = own.model_copy(update={name: value})
        torch.manual_seed(0)
        other = write(role, config, build_network(config).state_dict())
        message = refusal(lambda other=other: write_combined(tmp_path, "bad", **parts | {role: other}, splits=labels))
        assert message.startswith(f"{role}: its {name} differs from that of shape")


def test_shape_alone_is_refused_as_a_predictor_of_electrons(parts):
    assert refusal(lambda: Predictor(parts["shape"], CPU)).startswith(
        "shape: predicts shapes without a number of states; combine it"
    )


def test_gap_alone_is_refused_as_a_predictor_of_spectra(parts):
    assert refusal(lambda: Predictor(parts["gap"], CPU)).startswith("gap: predicts band gaps")


def test_scale_alone_predicts_and_knows_no_gap(parts, trained, labels):
    """It knows the number of states, and a shape of its own."""
    predicted = Predictor(parts["scale"], CPU).predict_graphs(labels.test.graphs)
    scale = trained["scale"]
    raw = (
        predict_outputs(scale, labels.test.graphs, CPU) * scale.normalization.std.numpy()
        + scale.normalization.mean.numpy()
    )
    np.testing.assert_allclose(predicted.spectra, raw.clip(0), atol=SINGLE * raw.max())
    assert predicted.gaps is None


def test_half_precision_parts_combine_to_the_same_predictions(parts, write, trained, labels, tmp_path):
    """What a training with checkpoint_dtype float16 leaves is rounded once, not twice."""
    configs = {"shape": config_of(SHAPE), "scale": config_of(SCALE, "standard", "mae"), "gap": config_of(GAP)}
    halves = {
        role: write(role, config.model_copy(update={"checkpoint_dtype": "float16"})) for role, config in configs.items()
    }
    write_combined(tmp_path, "half", **halves, splits=labels)
    rounded = Checkpoint.load(tmp_path / CHECKPOINT)
    predicted = Predictor(rounded, CPU).predict_graphs(labels.test.graphs)
    graphs = GraphBatch.from_graphs(labels.test.graphs)
    with torch.inference_mode():
        shape, scale = (halves[role].network.outputs(graphs) for role in ("shape", "scale"))
        expected = shape * halves["scale"].network.normalization.denormalize(scale).sum(dim=1, keepdim=True)
    np.testing.assert_allclose(predicted.spectra, expected, atol=SINGLE * expected.max())


def test_shape_and_scale_read_one_pass_of_the_encoder(combined, labels):
    """The costly part."""
    network = combined.network
    assert isinstance(network, Combined)
    calls: list[int] = []
    hook = network.shape.encoder.register_forward_hook(lambda *_: calls.append(1))
    network.outputs(GraphBatch.from_graphs([build_graph(labels.test.crystals[0], GraphConfig())]))
    hook.remove()
    assert calls == [1]
    assert not hasattr(network.scale, "encoder")
