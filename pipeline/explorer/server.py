"""Serving the explorer on this machine only, until it is told to end."""

import secrets
import signal
import socket
import webbrowser

import click
import uvicorn

from labelgen.samples import InputError
from pipeline.explorer.app import build_app
from pipeline.explorer.session import Session

HOST = "127.0.0.1"


def serve(session: Session, port: int, open_browser: bool) -> None:
    """Serve until SIGINT or SIGTERM. port: 0 = any that is free. Raises InputError for one that is taken."""
    token = secrets.token_urlsafe()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise InputError(f"port {port} is taken ({error}); choose another --port, or leave it out") from error
        listener.listen()
        address = f"http://{HOST}:{listener.getsockname()[1]}/{token}/"
        app = build_app(session, token)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        # uvicorn raises the signal that ended it once more, for whoever was there before it: for nobody.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: None)
        click.echo(f"{session.name} is on {address}; Ctrl-C ends it")
        if open_browser:
            webbrowser.open(address)
        server.run(sockets=[listener])
