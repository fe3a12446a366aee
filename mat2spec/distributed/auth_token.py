"""Ray's authentication token, set explicitly so that no session depends on a file that another has left at home."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

MODE, TOKEN, TOKEN_FILE, ADDRESS = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"

STARTS_LOCAL = "local"
"""Value of RAY_ADDRESS for a Ray that is started here."""

DEFAULT_TOKEN_FILE = Path(".ray/auth_token")
"""Where Ray looks last, below the home directory."""


def token_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that a process must set before it starts or joins a Ray cluster.

    Whatever address Ray is given, its control store, node manager and agents listen on every interface of the machine
    (seen in 2.60), and whoever reaches them can run code. A cluster that this process starts therefore requires a
    token: the user's, or else a new one that is valid for this cluster only. A process that joins another cluster
    presents the token that it finds. An authentication mode that is already set is kept.

    Args:
        variables: The process's environment.
    """
    if MODE in variables:
        return {}
    if TOKEN in variables or TOKEN_FILE in variables or Path(os.path.expanduser("~"), DEFAULT_TOKEN_FILE).exists():
        return {MODE: "token"}
    joins = variables.get(ADDRESS, "") not in ("", STARTS_LOCAL)
    return {MODE: "disabled"} if joins else {MODE: "token", TOKEN: secrets.token_hex(32)}
