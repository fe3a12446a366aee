"""Ids of the Materials Project in their three forms: mp-149 (tables), mp-aaaaaaft (API) and aaaaaaft (S3)."""

from collections.abc import Sequence

from mat2spec.errors import ConfigError


def usual_id(identifier: str) -> str:
    """Return an id in the form of the bundled tables: mp-149, also for mp-aaaaaaft; letters where MP has no number.

    Raises:
        ConfigError: If it is not an id of the Materials Project.
    """
    from emmet.core.mpid import AlphaID

    try:
        alpha_id = AlphaID(identifier, padlen=8)
        if not alpha_id._prefix:
            raise ValueError("it has no prefix")
        return alpha_id.string
    except ValueError as error:
        rule = f"is not an id of the Materials Project ({error})"
        raise ConfigError(f"{identifier!r} {rule}; ids look like mp-149 or mp-aaaaaaft") from None


def stored_ids(ids: Sequence[str]) -> list[str]:
    """Ids in the form of the tables of spectra: eight letters."""
    from emmet.core.mpid import AlphaID

    return [str(AlphaID(identifier.split("-")[-1], padlen=8)) for identifier in ids]
