"""An object store that is slow and fails: moto's S3 behind a few lines that hold requests up, refuse and cut them."""

import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUCKET = "rounds"
ERROR = b"<Error><Code>%s</Code><Message>no luck</Message></Error>"


@dataclass(frozen=True)
class Trouble:
    """Shares of all requests: failed with 500 before they were acted on or after, throttled with 503, cut short."""

    failed: float = 0.05
    throttled: float = 0.02
    cut: float = 0.01
    delay_s: float = 0.01  # of each request, on average
    gone_after: int | None = None  # from then on every request is throttled
    seed: int = 0


class ObjectStore:
    """A local S3 server with one bucket; healthy until `trouble` is set."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *arguments: Any) -> None:
                pass

        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=Quiet)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._trouble: Trouble | None = None
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.port}",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "2",  # s3fs tries again besides; with botocore's five it would take a minute to give up
        }
        self._client().create_bucket(Bucket=BUCKET)

    def set_trouble(self, trouble: Trouble | None) -> None:
        """From now on; None: healthy again."""
        self._trouble, self._requests = trouble, 0
        self._rng = random.Random(trouble.seed if trouble else 0)

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        trouble = self._trouble
        if trouble is None:
            return self._app(environ, start_response)
        self._requests += 1
        time.sleep(self._rng.expovariate(1 / trouble.delay_s))
        if trouble.gone_after is not None and self._requests > trouble.gone_after:
            return _refuse(environ, start_response, "503 Slow Down", b"SlowDown")
        luck = self._rng.random() - trouble.failed
        if luck < 0:
            if luck < -trouble.failed / 2:  # acted on, but nobody hears of it
                self._answer(environ)
            return _refuse(environ, start_response, "500 Internal Server Error", b"InternalError")
        if luck < trouble.throttled:
            return _refuse(environ, start_response, "503 Slow Down", b"SlowDown")
        status, headers, body = self._answer(environ)
        start_response(status, headers)
        # The header still says how long it would have been; the server closes the connection after it.
        return [body[: len(body) // 2]] if luck < trouble.throttled + trouble.cut else [body]

    def _answer(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        said: list[Any] = []
        body = b"".join(self._app(environ, lambda *heads: said.append(heads)))
        return said[-1][0], said[-1][1], body

    def _client(self) -> Any:
        import boto3

        names = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}
        names |= {"region_name": "AWS_DEFAULT_REGION", "endpoint_url": "AWS_ENDPOINT_URL"}
        return boto3.client("s3", **{name: self.environment[variable] for name, variable in names.items()})

    def contents(self, url: str) -> dict[str, bytes]:
        """Every object below the URL, by the rest of its name."""
        client, start = self._client(), _key(url)
        listed = client.list_objects_v2(Bucket=BUCKET, Prefix=start)  # of 1,000 objects; a round has a hundred
        keys = [entry["Key"] for entry in listed.get("Contents", [])]
        return {key.removeprefix(start): client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def fill(self, url: str, folder: Path) -> None:
        """Hold the files of a folder below the URL, and nothing else."""
        client, start = self._client(), _key(url)
        for name in self.contents(url):
            client.delete_object(Bucket=BUCKET, Key=start + name)
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = file.relative_to(folder).as_posix()
            client.put_object(Bucket=BUCKET, Key=start + name, Body=file.read_bytes())


def _key(url: str) -> str:
    return url.removeprefix(f"s3://{BUCKET}/") + "/"


def _refuse(environ: dict[str, Any], start_response: Callable[..., Any], status: str, code: bytes) -> list[bytes]:
    body = ERROR % code
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
