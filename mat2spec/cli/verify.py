"""`mat2spec verify`: compute materials of a run from first principles and score its predictions."""

from mat2spec.config import VerifyConfig
from mat2spec.distributed.dft.campaign import Verification
from mat2spec.storage.paths import resolve, resolve_output


def main(config: VerifyConfig, _: str | None) -> None:
    """Compute the materials that have no result yet, and print the scores."""
    if config.vasp_folder:
        config = config.model_copy(update={"vasp_folder": str(resolve(config.vasp_folder))})
    print(Verification(config, resolve_output(config.run)).run())
