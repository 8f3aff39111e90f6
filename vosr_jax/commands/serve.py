"""`vosr serve`: serve models with a page and an HTTP interface."""

import argparse
import importlib.util
import os
import sys

from vosr_jax.commands.interrupts import running
from vosr_jax.errors import UserError
from vosr_jax.restoration.settings import AUTOENCODER_PRECISIONS, PRECISIONS
from vosr_jax.serving.settings import ServiceSettings, served_names

_TOKEN = "VOSR_SERVE_TOKEN"
_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_parser(commands) -> None:
    """Describe the command to argparse's subparsers."""
    serve = commands.add_parser(
        "serve",
        help="offer a page and an HTTP interface",
        description="Open http://127.0.0.1:8000/ for the page; POST /v1/upscale takes pictures "
        "from programs. Only this machine can reach it unless --host says otherwise. Ctrl-C and "
        "SIGTERM finish the pictures at work and refuse the rest.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = serve.add_argument
    models = "name, export, workdir or official folder; nano-onestep if not given; repeatable"
    add("-m", "--model", action="append", default=argparse.SUPPRESS, metavar="MODEL", help=models)
    add("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: the whole network")
    add("--port", type=_port, default=8000, help="0: any that is free")
    token = f"what clients must show; better in the environment as {_TOKEN}"
    add("--token", default=argparse.SUPPRESS, metavar="TOKEN", help=token)
    limits = (
        ("queue", int, "COUNT", "requests at a time; more are told to come later"),
        ("batch", int, "COUNT", "pictures of equal settings restored together"),
        ("max_megabytes", float, "MB", "of a request"),
        ("max_megapixels", float, "MP", "of a result"),
        ("max_seconds", float, "S", "for a request, waiting included"),
    )
    for name, kind, unit, text in limits:
        default = getattr(ServiceSettings, name)
        flag = "--" + name.replace("_", "-")
        add(flag, type=kind, default=default, metavar=unit, help=text)
    add("--precision", choices=PRECISIONS, default="float32", help="denoiser's")
    add("--autoencoder-precision", choices=AUTOENCODER_PRECISIONS, default="float32", help=" ")
    add("--api-only", action="store_true", help="without the page")
    serve.set_defaults(run=run, starts=True)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal arrives."""
    _require(_PACKAGES if options.api_only else (*_PACKAGES, "gradio"))
    settings = ServiceSettings(
        queue=options.queue,
        batch=options.batch,
        max_megabytes=options.max_megabytes,
        max_megapixels=options.max_megapixels,
        max_seconds=options.max_seconds,
        token=getattr(options, "token", None) or os.environ.get(_TOKEN) or None,
    )
    names = served_names(getattr(options, "model", ["nano-onestep"]))
    # These load FastAPI.
    from vosr_jax.serving.api import create_app
    from vosr_jax.serving.server import Server, listen
    from vosr_jax.serving.service import open_service

    service = open_service(settings, names, (options.precision, options.autoencoder_precision))
    app = create_app(service)
    if not options.api_only:
        # Loads Gradio, which may be missing.
        from vosr_jax.serving.page import mount_page

        mount_page(app, service)
    running()
    listener = listen(options.host, options.port)
    if options.host not in _LOOPBACK and service.settings.token is None:
        print(f"note: whoever reaches {options.host} may use this; see --token", file=sys.stderr)
    _announce(options, listener.getsockname()[1])
    Server(app, service).run(sockets=[listener])
    if service.trouble is not None:
        raise service.trouble
    return 0


def _require(packages: tuple[str, ...]) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"the service needs other packages ({', '.join(missing)}): "
            "pip install 'vosr_jax[serve]'"
        )


def _announce(options: argparse.Namespace, port: int) -> None:
    host = f"[{options.host}]" if ":" in options.host else options.host
    page = "" if options.api_only else f"the page: http://{host}:{port}/, "
    print(f"{page}programs: http://{host}:{port}/v1/upscale; Ctrl-C ends it", flush=True)


def _port(text: str) -> int:
    if not (text.isdigit() and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"'{text}' is no port from 0 to 65535")
    return int(text)
