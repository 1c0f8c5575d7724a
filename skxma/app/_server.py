"""The page's routes: JSON in and out of the sessions of its tabs, for a browser on this machine and nobody else."""

from __future__ import annotations

import base64
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flask import Blueprint, Flask, Response, abort, current_app, jsonify, request, send_from_directory
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from skxma._evidence.fitted import CONFIDENCE_LEVEL
from skxma._persistence.model_card import name_encoder
from skxma.app._answer import can_reject, shots
from skxma.app._gallery import ChangedError
from skxma.app._job import Job
from skxma.app._session import Asked, Model, Session
from skxma.app._tabs import TabGoneError, Tabs, TooManyTabsError
from skxma.app._wording import is_expected, words_of
from skxma.inspection._left_out import expected_accuracy
from skxma.inspection._support import support_names

if TYPE_CHECKING:
    from skxma._estimators.base import BaseFewShotClassifier

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("page")
MAX_UPLOAD = 64 * 2**20
MAX_MODEL = 2**30
MAX_PORT = 2**16 - 1
# nothing on the page comes from, or goes to, anywhere else
POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
STATUS = {TabGoneError: 410, ChangedError: 409, TooManyTabsError: 503}

routes = Blueprint("page", __name__)
tab_routes = Blueprint("tab", __name__, url_prefix="/tabs/<uuid:tab>")


def make_app(tabs: Tabs) -> Flask:
    """The web application of some tabs."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_UPLOAD
    # a site that gives this address a name of its own is turned away
    app.config["TRUSTED_HOSTS"] = [HOST, "localhost"]
    app.extensions["skxma"] = tabs
    app.register_blueprint(routes)
    app.register_blueprint(tab_routes)
    return app


def listen(app: Flask, port: int) -> BaseWSGIServer:
    """A server on this machine's own address, ready to serve; port 0 takes a free one.

    Raises
    ------
    OSError
        The port is in use.
    ValueError
        It is no port.
    """
    if not 0 <= port <= MAX_PORT:
        raise ValueError(f"Port {port} is none; choose one from 1 to {MAX_PORT}, or 0 for any that is free.")
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


def the_tabs() -> Tabs:
    """The tabs that the application serves."""
    tabs: Tabs = current_app.extensions["skxma"]
    return tabs


@contextmanager
def session_of(tab: UUID) -> Iterator[Session]:
    """The session of a tab, for one request at a time."""
    session = the_tabs().get(tab)
    with session.lock:
        yield session


@routes.before_app_request
def refuse_other_sites() -> None:
    """Answer the page itself, and no request that another site's page has a browser make."""
    origin = request.headers.get("Origin")
    if origin is not None and origin != request.host_url.rstrip("/"):
        abort(403, "This page answers its own requests only.")


@routes.after_app_request
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
        limit = request.max_content_length or MAX_UPLOAD
        return jsonify(error=f"The file is larger than {limit // 2**20} MB; make it smaller."), 413
    if isinstance(error, HTTPException):
        return jsonify(error=error.description), error.code or 500
    if type(error) in STATUS:
        return jsonify(error=str(error)), STATUS[type(error)]
    if is_expected(error):
        return jsonify(error=words_of(error)), 400
    traceback.print_exception(error)
    return jsonify(error=words_of(error)), 500


@routes.get("/")
@routes.get("/<any('page.css', 'page.js'):name>")
def page(name: str = "page.html") -> Response:
    """The page, its style and its script."""
    return send_from_directory(PAGE, name)


@tab_routes.put("")
def open_tab(tab: UUID) -> Response:
    """A session for a tab that has made itself a token."""
    session = the_tabs().open(tab)
    with session.lock:
        return described(session)


@tab_routes.post("/leave")
def leave(tab: UUID) -> Response:
    """The tab was closed, or is being loaded again."""
    the_tabs().leave(tab)
    return Response(status=204)


@tab_routes.get("/state")
def state(tab: UUID) -> Response:
    """All that the page shows of the session."""
    with session_of(tab) as session:
        return described(session)


@tab_routes.post("/columns")
def add_column(tab: UUID) -> Response:
    """One more class."""
    with session_of(tab) as session:
        session.gallery.add_column()
        return described(session)


@tab_routes.put("/columns/<int:number>")
def rename(tab: UUID, number: int) -> Response:
    """Another name for a class."""
    body = request.get_json()
    with session_of(tab) as session:
        session.gallery.rename(number, str(body.get("name", "")) if isinstance(body, dict) else "")
        return described(session)


@tab_routes.delete("/columns/<int:number>")
def remove_column(tab: UUID, number: int) -> Response:
    """One class less."""
    with session_of(tab) as session:
        session.gallery.remove_column(number)
        return described(session)


@tab_routes.post("/columns/<int:number>/images")
def add_image(tab: UUID, number: int) -> Response:
    """One image into a class."""
    name, content = uploaded()
    with session_of(tab) as session:
        _, warnings = session.gallery.add_image(number, name, content)
        return described(session, warnings)


@tab_routes.delete("/images/<int:number>")
def remove_image(tab: UUID, number: int) -> Response:
    """One image less."""
    with session_of(tab) as session:
        session.gallery.remove_image(number)
        return described(session)


@tab_routes.put("/images/<int:number>")
def label_image(tab: UUID, number: int) -> Response:
    """Put an image without a label into a class: by `column`, its number, or by `name`, which may be new."""
    body = request.get_json()
    given = body if isinstance(body, dict) else {}
    column = given.get("column")
    with session_of(tab) as session:
        if "name" in given:
            session.gallery.label_as(number, str(given["name"]))
        else:
            session.gallery.label(number, column if isinstance(column, int) else 0)
        return described(session)


@tab_routes.post("/pool")
def add_to_pool(tab: UUID) -> Response:
    """One image without a label."""
    name, content = uploaded()
    with session_of(tab) as session:
        return described(session, session.gallery.add_to_pool(name, content))


@tab_routes.delete("/pool")
def clear_pool(tab: UUID) -> Response:
    """No image without a label."""
    with session_of(tab) as session:
        session.gallery.clear_pool()
        return described(session)


@tab_routes.get("/images/<int:number>")
def image(tab: UUID, number: int) -> Response:
    """An image, small."""
    with session_of(tab) as session:
        return Response(session.gallery.thumbnail(number), mimetype="image/png")


@tab_routes.post("/undo")
def undo(tab: UUID) -> Response:
    """Put back what was removed last."""
    with session_of(tab) as session:
        session.gallery.undo()
        return described(session)


@tab_routes.post("/example")
def example(tab: UUID) -> Response:
    """The bundled images in the place of the classes."""
    with session_of(tab) as session:
        session.gallery.use_example()
        return described(session)


@tab_routes.get("/example/<int:index>")
def example_query(tab: UUID, index: int) -> Response:
    """A bundled image to ask about."""
    with session_of(tab) as session:
        return Response(session.gallery.example_query(index)[1], mimetype="image/png")


@tab_routes.post("/fit")
def fit(tab: UUID) -> Response:
    """Start a fit."""
    with session_of(tab) as session:
        return jsonify(described_job(session.fit()))


@tab_routes.post("/suggest")
def suggest_images(tab: UUID) -> Response:
    """Start to choose images to label next."""
    with session_of(tab) as session:
        return jsonify(described_job(session.suggest()))


@tab_routes.post("/ask")
def ask(tab: UUID) -> Response:
    """Start to answer for an image, uploaded or of the example."""
    index = request.form.get("example", type=int)
    model = request.form.get("model", type=int)
    upload = uploaded() if index is None else None
    with session_of(tab) as session:
        name, content = upload or session.gallery.example_query(index or 0)
        return jsonify(described_job(session.ask(name, content, model)))


@tab_routes.get("/job")
def job(tab: UUID) -> Response:
    """State of the last fit, question or choice of images."""
    with session_of(tab) as session:
        return jsonify(described_job(session.job))


@tab_routes.delete("/job")
def stop(tab: UUID) -> Response:
    """Stop it."""
    with session_of(tab) as session:
        session.stop()
        return jsonify(described_job(session.job))


@tab_routes.post("/model")
def open_model(tab: UUID) -> Response:
    """Open a saved model."""
    request.max_content_length = MAX_MODEL
    file = uploaded_file()
    with session_of(tab) as session:
        path = session.upload_path()
        file.save(path)
        try:
            session.open_model(file.filename or "the file", path)
        finally:
            path.unlink(missing_ok=True)
        return described(session)


@tab_routes.delete("/model")
def close_model(tab: UUID) -> Response:
    """Go back to the classes of the page."""
    with session_of(tab) as session:
        session.close_model()
        return described(session)


@tab_routes.get("/model")
def save_model(tab: UUID) -> Response:
    """The fitted model as a file."""
    with session_of(tab) as session:
        content = session.saved_model()
    disposition = {"Content-Disposition": "attachment; filename=model.skxma"}
    return Response(content, mimetype="application/octet-stream", headers=disposition)


def uploaded_file() -> FileStorage:
    """The file that came with the request."""
    file = request.files.get("file")
    if not isinstance(file, FileStorage):
        raise ValueError("No file came with the request.")
    return file


def uploaded() -> tuple[str, bytes]:
    """Name and content of the file that came with the request."""
    file = uploaded_file()
    return file.filename or "image", file.read()


def described(session: Session, warnings: list[str] | None = None) -> Response:
    """The state of a session as JSON, with the warnings of what was done."""
    columns = [
        {
            "number": column.number,
            "name": column.name,
            "images": [{"number": one.number, "name": one.name} for one in column.images],
        }
        for column in session.gallery.columns
    ]
    return jsonify(
        encoder=name_encoder(session.encoder),
        columns=columns,
        pool={
            "n_images": len(session.gallery.unlabeled),
            "suggested": [{"number": one.number, "name": one.name} for one in session.suggested],
        },
        repeats=[asdict(repeat) for repeat in session.gallery.repeats],
        undo=session.gallery.undoable,
        examples=session.gallery.example_queries,
        model=None if session.model is None else described_model(session.model, session.change),
        job=described_job(session.job) if session.is_busy else None,
        warnings=warnings or [],
    )


def described_model(model: Model, change: str | None) -> dict[str, Any]:
    """A model: its classes, and what the fit found."""
    clf = model.classifier
    return {
        "number": model.number,
        "file": model.file,
        "encoder": name_encoder(clf.encoder),
        "classes": [{"label": label, "n_images": n} for label, n in shots(clf)],
        "n_images": int((clf.sample_position_ >= 0).sum()),
        "expected": described_accuracy(clf),
        "seconds": model.seconds,
        "change": change,
        "can_reject": can_reject(clf),
        "doubts": [asdict(doubt) for doubt in model.doubts],
        "warnings": model.warnings,
    }


def described_accuracy(clf: BaseFewShotClassifier) -> dict[str, float] | None:
    """Interval of the expected accuracy on new images; None where no image of the fit could be left out."""
    found = expected_accuracy(clf)
    if found is None:
        return None
    return {"low": float(found.low), "high": float(found.high), "confidence_level": CONFIDENCE_LEVEL}


def described_job(job: Job | None) -> dict[str, Any] | None:
    """State and result of a job."""
    if job is None:
        return None
    found = {name: getattr(job, name) for name in ("kind", "state", "words", "done", "total", "error")}
    return {**found, "answer": described_answer(job.result) if isinstance(job.result, Asked) else None}


def described_answer(asked: Asked) -> dict[str, Any]:
    """An answer with its evidence; images of the fit are named where they are at hand."""
    images, names = asked.model.images, support_names(asked.model.classifier)
    retrieved = []
    for found in asked.answer.retrieved:
        # an opened model brings no images
        support, name = images[found.sample - 1] if images else None, names[found.sample - 1]
        retrieved.append(
            {
                **asdict(found),
                "image": None if support is None else support.number,
                "name": f"image {found.sample}" if name is None else Path(name).name,
            }
        )
    return {
        "name": asked.query.name,
        "thumbnail": base64.b64encode(asked.query.thumbnail).decode(),
        "model": asked.model.number,
        "is_unknown": asked.answer.is_unknown,
        "known_as": asked.known_as,
        "scores": [asdict(score) for score in asked.answer.scores],
        "certain": asked.answer.certain,
        "confidence_level": CONFIDENCE_LEVEL,
        "retrieved": retrieved,
        "warnings": asked.warnings,
    }
