"""What the electronic network is trained on: nothing from a chemical system that it is tested on."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Element

from mat2spec.config import TrainConfig, load_config
from mat2spec.data.labels.dataset import LabeledCrystals, LabeledSplits
from mat2spec.train.inputs import TrainingInputs

CONFIGS = Path(__file__).parents[3] / "configs"


def splits(name: str, *options: str) -> LabeledSplits:
    config = load_config(TrainConfig, CONFIGS / f"{name}.yaml", list(options))
    return TrainingInputs.from_config(config).splits(config, check_graphs=False)


def systems(part: LabeledCrystals) -> set[str]:
    """Chemical systems, by pymatgen."""
    return {
        "-".join(sorted({Element.from_Z(int(z)).symbol for z in crystal.atomic_numbers})) for crystal in part.crystals
    }


@pytest.fixture(scope="module")
def pretraining() -> LabeledSplits:
    return splits("edos-projected-pretraining")


@pytest.fixture(scope="module", params=range(1, 6))
def fold(request) -> LabeledSplits:
    return splits("edos-projected", "--data.fold", str(request.param))


def test_pretraining_has_no_chemical_system_of_any_label(pretraining, fold):
    assert len(pretraining.train) > 6_000
    for part in (fold.test, fold.valid):
        assert not systems(part) & (systems(pretraining.train) | systems(pretraining.valid))


def test_training_has_more_labels_than_the_616_but_none_of_the_systems_of_the_held_out_folds(fold):
    assert len(fold.train) + len(fold.valid) + len(fold.test) > 616
    assert not systems(fold.train) & (systems(fold.valid) | systems(fold.test))


def test_held_out_folds_are_those_of_the_616_alone():
    alone = splits("edos-sum-kl", "--data.fold", "3")
    with_more = splits("edos-projected", "--data.fold", "3")
    assert with_more.test.material_ids == alone.test.material_ids
    assert with_more.valid.material_ids == alone.valid.material_ids


def test_tight_binding_spectra_have_no_more_states_below_the_fermi_level_than_electrons(bundled):
    table = pq.read_table(bundled.with_name("edos_tb.parquet"))
    spectra = np.stack(table["edos"].to_numpy(zero_copy_only=False)).astype(float)
    assert (spectra >= 0).all()
    occupied = spectra[:, :64].sum(axis=1) * 0.0625
    electrons = table["electrons"].to_numpy()
    smoothed_across = 0.125 * spectra[:, 56:72].max(axis=1)
    assert (occupied <= electrons + smoothed_across).all()
    assert np.median(occupied / electrons) > 0.3, "the window holds the upper valence states"
