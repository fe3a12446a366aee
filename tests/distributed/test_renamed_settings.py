"""Runs of earlier versions, whose settings have other names."""

import json

import pytest

from mat2spec.config import TrainConfig
from mat2spec.distributed.training.settings import CONFIG, identifying_settings, refuse_other_settings
from mat2spec.errors import RunError


def test_training_of_an_earlier_version_is_resumed_only_with_the_same_settings(tmp_path):
    def settings(extra: str) -> dict:
        data = {"table": "labels.parquet", "extra_train": extra}
        return identifying_settings(TrainConfig.model_validate({"data": data})) | {"labels": "fingerprint"}

    old = settings("more.parquet")
    old["data"]["further"] = old["data"].pop("extra_train")
    (tmp_path / CONFIG).write_text(json.dumps(old))
    refuse_other_settings(tmp_path, settings("more.parquet"))
    with pytest.raises(RunError, match=r"data\.extra_train more\.parquet → another\.parquet"):
        refuse_other_settings(tmp_path, settings("another.parquet"))
