"""The process of a command: streams whose reader may leave, and a user whom the system may not know."""

import getpass
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _UntilReaderLeaves(io.FileIO):
    """A file that takes everything, also after its reader has closed the pipe."""

    def write(self, data: "Buffer", /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Let this process finish what it does when the reader of its output has seen enough, such as `| head`."""
    sys.stdout, sys.stderr = map(_outliving, (sys.stdout, sys.stderr))


def _outliving(stream: Any) -> Any:
    if stream is None:  # the process was started without it
        return None
    raw = _UntilReaderLeaves(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=stream.line_buffering
    )


def name_home_and_user() -> None:
    """Set HOME and USER if neither the environment nor the system has them: libraries ask for both when imported.

    Kubernetes and OpenShift run containers as users that no passwd file lists. Docker also calls their home "/".
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())
