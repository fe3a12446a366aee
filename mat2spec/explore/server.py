"""The server of the page: for this user alone, on this machine alone."""

import hmac
import json
import logging
import secrets
import tempfile
from contextlib import suppress
from typing import Any

import flask
from dash import Dash
from pydantic import ValidationError
from werkzeug.serving import make_server

from mat2spec.errors import Mat2SpecError
from mat2spec.explore.details import connect_details
from mat2spec.explore.export import EXPORTS
from mat2spec.explore.filters import connect_filters
from mat2spec.explore.page import page
from mat2spec.explore.plots import connect_plots
from mat2spec.explore.reader import RunReader
from mat2spec.explore.records import connect_rejects
from mat2spec.explore.selection import Selection
from mat2spec.explore.table import connect_table
from mat2spec.ports import HOST, bind


def make_app(reader: RunReader, token: str) -> flask.Flask:
    """Make the web application of a run.

    Args:
        reader: The run.
        token: Who does not know it is refused.
    """
    server = flask.Flask(__name__)
    app = Dash(
        __name__,
        server=server,  # type: ignore[arg-type] # a Flask is what it is for
        title=f"{reader.path.name} · mat2spec",
        update_title="",
        assets_ignore="3Dmol",  # half a megabyte, read when the first crystal is shown
        suppress_callback_exceptions=True,  # plots are placed after the first rows
    )
    app.layout = lambda: page(reader)
    for connect in (connect_filters, connect_table, connect_plots, connect_details, connect_rejects):
        connect(app, reader)
    _require_token(server, token)
    server.add_url_rule("/export/<form>", view_func=lambda form: _export(reader, form))
    return server


def _require_token(server: flask.Flask, token: str) -> None:
    """Take the token from the first address, and from then on from a cookie that no other site can send."""
    cookie = f"mat2spec-{token[:8]}"

    @server.before_request
    def check_token() -> Any:
        if hmac.compare_digest(flask.request.cookies.get(cookie, "").encode(), token.encode()):
            return None
        if hmac.compare_digest(flask.request.args.get("token", "").encode(), token.encode()):
            answer = flask.redirect("/")
            answer.set_cookie(cookie, token, httponly=True, samesite="Strict")
            return answer
        return _refused("open the address that mat2spec explore has printed, with its token", 403)


def _export(reader: RunReader, form: str) -> Any:
    """Send the selected rows as a file."""
    if form not in EXPORTS:
        return _refused(f"{form}: no kind of file; choose from {', '.join(EXPORTS)}", 404)
    ending, write = EXPORTS[form]
    file = tempfile.TemporaryFile()  # noqa: SIM115 - Flask closes it when it is sent
    try:
        write(reader, Selection(**json.loads(flask.request.args.get("selection", "{}"))), file)
    except (Mat2SpecError, ValidationError, ValueError) as error:
        file.close()
        return _refused(str(error), 400)
    file.seek(0)
    return flask.send_file(file, "application/octet-stream", True, f"{reader.path.name}.{ending}")


def _refused(reason: str, status: int) -> flask.Response:
    return flask.Response(f"{reason}\n", status, mimetype="text/plain")


def serve(reader: RunReader, port: int) -> None:
    """Serve the page of a run until the user interrupts.

    Raises:
        ConfigError: If no port is free.
    """
    token = secrets.token_urlsafe(24)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with bind(port) as listener, suppress(KeyboardInterrupt):
        taken = listener.getsockname()[1]
        server = make_server(HOST, taken, make_app(reader, token), threaded=True, fd=listener.fileno())
        if taken != port:
            print(f"port {port} is in use, taking {taken}")
        print(f"{reader.path}: http://{HOST}:{taken}/?token={token}   (Ctrl-C ends it)", flush=True)
        server.serve_forever()
