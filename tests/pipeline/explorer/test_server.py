"""Who may ask the server, and how it ends."""

import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from pipeline.explorer.app import build_app
from pipeline.explorer.server import Guard
from tests.conftest import ROOT, command, refused
from tests.pipeline.explorer.conftest import session_of

TOKEN = "so-secret_token"


@pytest.fixture
def guarded(toy: tuple[object, ...]) -> TestClient:
    return TestClient(Guard(build_app(session_of(*toy)), TOKEN), follow_redirects=False)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/api/run",
        f"/{TOKEN[:-1]}/",
        f"/{TOKEN}x/api/run",
        f"/{TOKEN.upper()}/",
        f"//{TOKEN}/",
        "/%C3%A9/",
        "/%FF/",
    ],
)
def test_without_the_token_nothing_is_there(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == 404
    assert guarded.post(path, json={}).status_code == 404


def test_with_the_token_everything_is(guarded: TestClient) -> None:
    assert guarded.get(f"/{TOKEN}/").status_code == 200
    assert guarded.get(f"/{TOKEN}/api/run").json()["images"] == 3
    assert guarded.get(f"/{TOKEN}").headers["location"] == f"/{TOKEN}/"


def test_the_token_is_compared_in_constant_time(guarded: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("secrets.compare_digest", lambda *both: compared.append(both))
    assert guarded.get("/guess/api/run").status_code == 404
    assert compared == [(b"guess", TOKEN.encode())]


def test_a_port_that_is_taken_is_said(toy: tuple[object, ...]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert "choose another --port" in refused("explore", *toy, "--port", other.getsockname()[1], "--no-browser")


@pytest.mark.slow
@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_ends_in_peace(toy: tuple[object, ...], way: signal.Signals) -> None:
    line = command("explore", *toy, "--no-browser")
    run = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    try:
        said = "".join(run.stdout.readline() for _ in range(3))
        found = re.search(r"http://127\.0\.0\.1:(\d+)/[\w-]{40,}/", said)
        assert found is not None, said
        for address in (
            "",
            "api/run",
            "api/images",
            "api/images/0",
            "api/images/0/photo",
            "api/images/0/mask?layer=fused",
        ):
            with urllib.request.urlopen(found[0] + address) as answer:
                assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/")
        run.send_signal(way)
        rest, errors = run.communicate(timeout=120)
    finally:
        run.kill()
    assert (run.returncode, rest, errors) == (0, "", "")
    with socket.socket() as port:
        assert port.connect_ex(("127.0.0.1", int(found[1]))) != 0
    assert sorted(path.name for path in Path(str(toy[0])).iterdir()) == ["labels"]


def test_what_was_not_saved_is_said_at_the_end(toy: tuple[object, ...]) -> None:
    session = session_of(*toy)
    assert session.parting == ""
    session.change_tag({"row": 0, "class": 0, "present": 0 not in session.about(0)["tags"]})
    assert session.parting == "changes of tags were not saved; images with other tags: 1"
    session.save({})
    assert session.parting == ""


def test_only_this_machine_is_listened_to(toy: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.explorer import server

    heard = []

    def run(self: object, sockets: list[socket.socket]) -> None:
        heard.append(sockets[0].getsockname()[0])

    monkeypatch.setattr("uvicorn.Server.run", run)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    session = session_of(*toy)
    try:
        server.serve(session, 0, opens_browser=True)
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    assert heard == ["127.0.0.1"]
    assert opened[0].startswith("http://127.0.0.1:")
