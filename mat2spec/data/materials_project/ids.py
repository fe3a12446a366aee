"""Ids of the Materials Project: mp-149, mp-aaaaaaft and aaaaaaft are one number, written for tables, for the API and in S3."""

from collections.abc import Sequence

from mat2spec.errors import ConfigError


def usual_id(identifier: str) -> str:
    """Write an id as the bundled tables have it: mp-149, also if it is given as mp-aaaaaaft; eight letters where MP gave no number.

    Raises:
        ConfigError: If it is none.
    """
    from emmet.core.mpid import AlphaID

    try:
        found = AlphaID(identifier, padlen=8)
        if not found._prefix:
            raise ValueError("it has no prefix")
        return found.string
    except ValueError as error:
        raise ConfigError(
            f"{identifier!r} is no id of the Materials Project ({error}); ids look like mp-149 or mp-aaaaaaft"
        ) from None


def stored_ids(ids: Sequence[str]) -> list[str]:
    """Ids as the tables of spectra have them: eight letters."""
    from emmet.core.mpid import AlphaID

    return [str(AlphaID(identifier.split("-")[-1], padlen=8)) for identifier in ids]
