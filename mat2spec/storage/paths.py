"""Paths of a job: absolute, valid on every node, and not inside what Ray deletes.

Results, and runs that are read, are below MAT2SPEC_HOME if that is set, else below the current directory. Inputs and
configurations are looked for in both, and those that ship in the package.
"""

import difflib
import glob
import os
from collections.abc import Iterator
from pathlib import Path

from mat2spec.errors import ConfigError, RunError
from mat2spec.storage.location import Location, is_url, locate

PACKAGE = Path(__file__).parents[1]

CONFIGS = PACKAGE / "configs"
"""Folder of the configurations that ship; in a checkout a link to configs/."""

BUNDLED = "mat2spec/data/bundled/"
"""Beginning of the names that configurations give to the tables that ship."""

_UPLOADED_COPY = "runtime_resources/working_dir_files"


def resolve(path: str) -> Path:
    """Make the path of a result absolute: relative to MAT2SPEC_HOME if that is set, else to the current directory."""
    return Path(os.environ.get("MAT2SPEC_HOME") or Path.cwd(), path).absolute()


def resolve_location(path: str) -> Location:
    """Make the path of a result absolute, and leave a URL as it is."""
    return locate(path) if is_url(path) else resolve(path)


def resolve_input(path: str) -> Path:
    """Find an input: structures, a table, a folder or a glob.

    Args:
        path: The path as the user or a configuration wrote it.

    Returns:
        The absolute path of the first that exists: in the current directory, in MAT2SPEC_HOME, or among the tables
        that ship. If none does, that where the search began.
    """
    paths = [folder / path for folder in _input_folders()]
    if path.startswith(BUNDLED):
        paths.append(PACKAGE.parent / path)
    return next((candidate for candidate in paths if _exists(candidate)), paths[0])


def locate_input(path: str) -> Location:
    """Find an input as `resolve_input` does, and leave a URL as it is."""
    return locate(path) if is_url(path) else resolve_input(path)


def _input_folders() -> list[Path]:
    """Folders in which inputs are looked for.

    In a job of `ray job submit` the current directory is Ray's copy of the user's, which is deleted after the job;
    MAT2SPEC_HOME comes first there, so that run.json names a file that stays.
    """
    home = os.environ.get("MAT2SPEC_HOME")
    folders = [Path.cwd(), *([Path(home).absolute()] if home else [])]
    return folders[::-1] if _is_uploaded_copy() else folders


def _is_uploaded_copy() -> bool:
    return _UPLOADED_COPY in str(Path.cwd())


def _exists(path: Path) -> bool:
    """Whether there is such a file or folder, or one that matches it as a glob."""
    return os.path.lexists(path) or (glob.has_magic(str(path)) and any(glob.iglob(str(path), recursive=True)))


def resolve_config(name: str) -> Path:
    """Find a configuration: in the current directory, in MAT2SPEC_HOME, or among those that ship.

    Args:
        name: A path; of one that ships also its name, `screen-phdos` for `configs/screen-phdos.yaml`.

    Raises:
        ConfigError: If there is none.
    """
    path = next((candidate for candidate in _config_paths(name) if candidate.is_file()), None)
    if path is None:
        hint = _config_hint(name)
        raise ConfigError(
            f"{_input_folders()[0] / name}: cannot read the configuration (No such file or directory); {hint}"
        )
    return path


def _config_paths(name: str) -> Iterator[Path]:
    is_file_name = name.endswith((".yaml", ".yml"))
    for folder in _input_folders():
        yield folder / name
        if not is_file_name:
            yield folder / "configs" / f"{name}.yaml"
    shipped = name.removeprefix("configs/")
    yield CONFIGS / (shipped if is_file_name else f"{shipped}.yaml")


def _config_hint(name: str) -> str:
    """Names of the configurations that ship which are most like a name, else how to list all."""
    shipped = [str(path.relative_to(CONFIGS).with_suffix("")) for path in sorted(CONFIGS.glob("**/*.yaml"))]
    if close := difflib.get_close_matches(Path(name).stem, shipped, n=3):
        return f"did you mean {' or '.join(close)}?"
    return f"name a YAML file, or one of those in {CONFIGS}, such as screen-phdos"


def resolve_run(path: str) -> Location:
    """Make the path of a run directory absolute and check it, as `resolve_output` does; leave a URL as it is."""
    return locate(path) if is_url(path) else resolve_output(path)


def resolve_output(path: str, *, directory: bool = True) -> Path:
    """Make the path of a result absolute, and check that it can be written and outlives the job.

    Args:
        path: The path as the user wrote it.
        directory: Whether the result is a directory, else a file.

    Raises:
        ConfigError: If a relative path would land in Ray's uploaded copy of the working directory, which Ray deletes.
        RunError: If it is a URL, or cannot be created or written.
    """
    if is_url(path):
        raise RunError(f"{path}: this job's results go to a local or shared directory; give a path")
    if not (Path(path).is_absolute() or os.environ.get("MAT2SPEC_HOME")) and _is_uploaded_copy():
        raise ConfigError(
            f"output {path} is relative to Ray's copy of the working directory, which is deleted; "
            "give an absolute path or set MAT2SPEC_HOME"
        )
    output = resolve(path)
    existing = next(parent for parent in (output, *output.parents) if parent.exists())
    if existing.is_dir() != (directory or existing != output) or not os.access(existing, os.W_OK):
        what = "directory" if directory or existing != output else "file"
        raise RunError(f"{output}: cannot be written ({existing} is not a writable {what}); choose another path")
    return output
