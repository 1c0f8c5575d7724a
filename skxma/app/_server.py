"""The page's routes: JSON in and out of a session, for a browser on this machine and nobody else."""

from __future__ import annotations

import base64
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, request, send_from_directory
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from skxma.app._session import Session
from skxma.errors import SkxmaError

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("page")
MAX_UPLOAD = 64 * 2**20
# nothing on the page comes from, or goes to, anywhere else
POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

routes = Blueprint("page", __name__)


def make_app(session: Session) -> Flask:
    """The web application of a session."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_UPLOAD
    # a site that gives this address a name of its own is turned away
    app.config["TRUSTED_HOSTS"] = [HOST, "localhost"]
    app.extensions["skxma"] = session, Lock()
    app.register_blueprint(routes)
    return app


def listen(app: Flask, port: int) -> BaseWSGIServer:
    """A server on this machine's own address, ready to serve; port 0 takes a free one.

    Raises
    ------
    OSError
        The port is in use.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((HOST, port))
        except OSError as error:
            raise OSError(f"Port {port} cannot be had ({error.strerror}); choose another, or 0 for any.") from error
        bound.listen()
        return make_server(HOST, port, app, threaded=True, request_handler=QuietHandler, fd=bound.fileno())


class QuietHandler(WSGIRequestHandler):
    """Reports no requests; errors of ours are in the page, others on standard error."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


@contextmanager
def the_session() -> Iterator[Session]:
    """The session, for one request at a time."""
    session, one_at_a_time = current_app.extensions["skxma"]
    with one_at_a_time:
        yield session


@routes.before_request
def refuse_other_sites() -> None:
    """Answer the page itself, and no request that another site's page has a browser make."""
    origin = request.headers.get("Origin")
    if origin is not None and origin != request.host_url.rstrip("/"):
        abort(403, "This page answers its own requests only.")


@routes.after_request
def lock_down(response: Response) -> Response:
    """Let the page load nothing from elsewhere, and nothing be kept."""
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response


@routes.app_errorhandler(Exception)
def in_plain_words(error: Exception) -> tuple[Response, int]:
    """An error as a sentence for the page."""
    if isinstance(error, RequestEntityTooLarge):
        return jsonify(error=f"The file is larger than {MAX_UPLOAD // 2**20} MB; make it smaller."), 413
    if isinstance(error, HTTPException):
        return jsonify(error=error.description), error.code or 500
    if isinstance(error, (SkxmaError, ValueError, OSError)):
        return jsonify(error=str(error)), 400
    traceback.print_exception(error)
    return jsonify(error=f"Something went wrong in skxma itself ({type(error).__name__}: {error})."), 500


@routes.get("/")
@routes.get("/<any('page.css', 'page.js'):name>")
def page(name: str = "page.html") -> Response:
    """The page, its style and its script."""
    return send_from_directory(PAGE, name)


@routes.get("/state")
def state() -> Response:
    """All that the page shows of the session."""
    with the_session() as session:
        return described(session)


@routes.post("/columns")
def add_column() -> Response:
    """One more class."""
    with the_session() as session:
        session.add_column()
        return described(session)


@routes.put("/columns/<int:number>")
def rename(number: int) -> Response:
    """Another name for a class."""
    with the_session() as session:
        session.rename(number, str((request.get_json() or {}).get("name", "")))
        return described(session)


@routes.delete("/columns/<int:number>")
def remove_column(number: int) -> Response:
    """One class less."""
    with the_session() as session:
        session.remove_column(number)
        return described(session)


@routes.post("/columns/<int:number>/pictures")
def add_picture(number: int) -> Response:
    """One picture into a column."""
    name, content = uploaded()
    with the_session() as session:
        session.add_picture(number, name, content)
        return described(session)


@routes.delete("/pictures/<int:number>")
def remove_picture(number: int) -> Response:
    """One picture less."""
    with the_session() as session:
        session.remove_picture(number)
        return described(session)


@routes.get("/pictures/<int:number>")
def picture(number: int) -> Response:
    """A picture, small."""
    with the_session() as session:
        return Response(session.thumbnail(number), mimetype="image/png")


@routes.post("/sample")
def sample() -> Response:
    """The bundled pictures into the columns."""
    with the_session() as session:
        session.use_sample()
        return described(session)


@routes.post("/fit")
def fit() -> Response:
    """A classifier of the columns."""
    with the_session() as session:
        session.fit()
        return described(session)


@routes.post("/ask")
def ask() -> Response:
    """The answer for a picture, with its evidence."""
    name, content = uploaded()
    with the_session() as session:
        answer = session.ask(name, content)
    return jsonify({**asdict(answer), "thumbnail": base64.b64encode(answer.thumbnail).decode()})


@routes.get("/model")
def model() -> Response:
    """The classifier as a file."""
    with the_session() as session:
        content = session.model()
    disposition = {"Content-Disposition": "attachment; filename=model.skxma"}
    return Response(content, mimetype="application/octet-stream", headers=disposition)


def uploaded() -> tuple[str, bytes]:
    """Name and content of the file that came with the request."""
    file = request.files.get("file")
    if not isinstance(file, FileStorage):
        raise ValueError("No file came with the request.")
    return file.filename or "picture", file.read()


def described(session: Session) -> Response:
    """The state of a session as JSON."""
    fitted: dict[str, Any] | None = None
    if session.fitted is not None:
        clf = session.fitted.classifier
        fitted = {
            "n_pictures": len(session.fitted.pictures),
            "n_classes": len(clf.classes_),
            "seconds": session.fitted.seconds,
            "stale": session.stale,
            "doubts": [asdict(doubt) for doubt in session.fitted.doubts],
        }
    columns = [
        {
            "number": column.number,
            "name": column.name,
            "pictures": [{"number": one.number, "name": one.name} for one in column.pictures],
        }
        for column in session.columns
    ]
    return jsonify(encoder=session.encoder, columns=columns, fitted=fitted)
