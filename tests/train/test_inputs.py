"""Labels must be of the kind that the network predicts."""

import pytest

from mat2spec.config import TrainConfig
from mat2spec.errors import TableError
from mat2spec.train.inputs import TrainingInputs

GAP = {"architecture": "gap"}


@pytest.mark.parametrize(
    ("label", "model", "reason"),
    [
        ("edos", GAP, r"column edos has 128 numbers per row, architecture gap needs 1;"),
        (
            "band_gap",
            {},
            r"column band_gap has 1 number per row, architecture mat2spec needs 128;",
        ),
        (
            "band_gap",
            {"architecture": "mean"},
            r"architecture mean needs 128; choose another data\.label",
        ),
    ],
)
def test_label_of_another_kind_than_the_network_predicts_is_refused(bundled, label, model, reason):
    data = {"table": str(bundled.with_name("edos_gpaw.parquet")), "label": label, "fold": 1}
    config = TrainConfig.model_validate({"grid": "edos", "data": data, "model": model})
    with pytest.raises(TableError, match=reason) as caught:
        TrainingInputs.from_config(config).splits(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("label", "model", "size"), [("edos", {}, 128), ("band_gap", GAP, 1)])
def test_label_of_the_same_kind_is_read(bundled, label, model, size):
    data = {"table": str(bundled.with_name("edos_gpaw.parquet")), "label": label, "fold": 1}
    config = TrainConfig.model_validate({"grid": "edos", "data": data, "model": model})
    assert TrainingInputs.from_config(config).splits(config).train.spectra.shape[1] == size
