"""Who may speak to a Ray: its token, made explicit, so that no session depends on what another left in the home directory."""

import secrets
from collections.abc import Mapping
from pathlib import Path

MODE, TOKEN, TOKEN_FILE, ADDRESS = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"

DEFAULT_TOKEN_FILE = Path(".ray/auth_token")
"""Where Ray looks last, below the home directory."""


def token_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """Give what a process must add to its environment before it starts or joins a Ray.

    Whatever address Ray is given, its control store, node manager and agents listen on every interface of the machine (seen in 2.60), and
    who reaches them can run code. So a Ray that starts here asks for a token: the user's, else one that is made now and ends with it.
    To join another's, a process presents the token that it finds. A mode that is already set stays.

    Args:
        variables: The process's environment.
    """
    if MODE in variables:
        return {}
    if TOKEN in variables or TOKEN_FILE in variables or (Path.home() / DEFAULT_TOKEN_FILE).exists():
        return {MODE: "token"}
    return {MODE: "disabled"} if variables.get(ADDRESS) else {MODE: "token", TOKEN: secrets.token_hex(32)}
