"""`skxma app`: a page on which to try it."""

from __future__ import annotations

import argparse
import webbrowser
from typing import Any

from skxma._runtime.optional import require
from skxma.benchmark._names import DEFAULT_ENCODER
from skxma.cli._model_files import named_encoders

PORT = 7860


def add_parser(commands: Any) -> None:
    """Add ``skxma app`` to the subparsers of the command line."""
    parser = commands.add_parser(
        "app",
        help="open a page on which to try it",
        description="Serve a page to this machine's own browser: drop images into a column per class, fit, drop "
        "an image to ask about, see the answer with its evidence, save the model or open a saved one. Nothing leaves "
        "this machine. Needs Flask: pip install 'skxma[app]'.",
        epilog="examples: skxma app    skxma app --encoder tiny --port 0 --open",
    )
    parser.add_argument(
        "--encoder",
        action="append",
        metavar="NAME",
        help=f"given again, several at once: one knows texts, the others images alone (default: {DEFAULT_ENCODER})",
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help="0 for any (default: %(default)s)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Serve the page until it is interrupted; its address is printed."""
    require("flask", what="`skxma app`", extra="app")
    from skxma._estimators.several_encoders import check_encoders
    from skxma._runtime.device import resolve_device
    from skxma.app._server import listen, make_app
    from skxma.app._tabs import make_tabs
    from skxma.encoder._model_names import find_source

    encoder = named_encoders(arguments.encoder)
    encoders = encoder if isinstance(encoder, list) else [encoder]
    # a name is refused now, not when images have been brought; that of the default takes open_clip, and is right
    check_encoders(encoders)
    for name in encoders if arguments.encoder else ():
        find_source(name)
    resolve_device(arguments.device)
    tabs = make_tabs(encoder, arguments.device)
    try:
        server = listen(make_app(tabs), arguments.port)
        address = f"http://{server.host}:{server.port}/"
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        if arguments.open:
            webbrowser.open(address)
        server.serve_forever()
    finally:
        tabs.close()
