"""Serving the explorer on this machine only, to whoever knows the token, until it is told to end."""

import os
import secrets
import signal
import socket
import sys
import webbrowser

import click
import uvicorn
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from labelgen.samples import InputError
from pipeline.explorer.app import build_app
from pipeline.explorer.session import Session

HOST = "127.0.0.1"
PATIENCE_S = 3  # with requests that are being answered when it is told to end


class Guard:
    """Lets requests below /TOKEN/ through, as if they were below /. Of all others it says that nothing is there."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        first, slash, rest = scope["path"].removeprefix("/").partition("/")
        # In constant time: how long the answer takes must not tell how much of a guess was right.
        if not secrets.compare_digest(first.encode(errors="replace"), self._token.encode()):
            await PlainTextResponse("Not found", 404)(scope, receive, send)
        elif not slash:  # addresses on the page are relative
            await RedirectResponse(f"/{self._token}/")(scope, receive, send)
        else:
            await self._app({**scope, "path": f"/{rest}", "raw_path": None}, receive, send)


def serve(session: Session, port: int, *, opens_browser: bool) -> None:
    """Serve until SIGINT or SIGTERM. port: 0 = any that is free. Raises InputError for one that is taken."""
    token = secrets.token_urlsafe()
    # Named TCP, asyncio sends the end of an answer at once; else each answer waits 40 ms for the browser's word.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise InputError(f"port {port} cannot be had ({error.strerror}); choose another --port") from error
        listener.listen()  # who is told the address may ask at once
        address = f"http://{HOST}:{listener.getsockname()[1]}/{token}/"
        guarded = Guard(build_app(session), token)
        config = uvicorn.Config(
            guarded, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=PATIENCE_S
        )
        # uvicorn ends in peace, and then raises the signal once more, for whoever was there before it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: None)
        click.echo(f"exploring {session.store.path}\nopen {address}\nCtrl-C ends it")
        if opens_browser:
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listener])
    if session.parting:
        click.echo(f"Warning: {session.parting}", err=True)
    if not session.close():
        sys.stdout.flush()
        os._exit(0)  # a thread in the midst of torch would abort an interpreter that ends
