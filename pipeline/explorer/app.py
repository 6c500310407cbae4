"""The addresses of the explorer: what is asked, in numbers and known words, and what is answered."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from evaluation.webpage import BASE_STYLE, ELEMENTS, ZOOM, as_json
from labelgen.samples import InputError
from pipeline.explorer import pictures
from pipeline.explorer.masks import OWN, Shown
from pipeline.explorer.saving import ConflictError
from pipeline.explorer.session import ORDER, Session
from pipeline.explorer.words import SAVED

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
MOST_BYTES = 1_000_000  # of a request
MOST_ITEMS = 500  # of a page of the list
WORD, TRUTH = "word", "truth"


def build_app(session: Session) -> Starlette:
    """The application; where it is mounted, and who may ask, is the server's affair."""
    files = {path.name: path for path in (*PAGE.iterdir(), BASE_STYLE, ELEMENTS, ZOOM) if path.suffix in KINDS}

    def page(request: Request) -> Response:
        return _file(files["page.html"])

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            raise HTTPException(404, "there is no such file")
        return _file(files[name])

    def run(request: Request) -> Response:
        return _json(session.describe())

    def images(request: Request) -> Response:
        asked = request.query_params
        offset, limit = _number(request, "offset", 0), min(_number(request, "limit", 50), MOST_ITEMS)
        row = _number(request, "row", 0) if "row" in asked else None
        return _json(session.listing(asked.get("sort", ORDER), asked.get("query", ""), offset, limit, row))

    def row_of(request: Request) -> int:
        row = int(request.path_params["row"])
        if row >= len(session.store):
            raise HTTPException(404, f"there is no image {row}, but {len(session.store)} from 0")
        return row

    def shown(request: Request) -> Shown:
        asked = request.query_params
        return Shown(
            row=row_of(request),
            layer=asked.get("layer", "global"),
            store=asked.get("store", OWN),
            words=asked.get("words", SAVED),
            has_saved_tags=asked.get("tags") == SAVED,
        )

    def image(request: Request) -> Response:
        return _json(session.about(row_of(request)))

    def photo(request: Request) -> Response:
        path = session.images.sample(row_of(request))["image_path"]
        return Response(pictures.photo(path), media_type="image/jpeg", headers=HEADERS)

    def mask(request: Request) -> Response:
        wanted = shown(request)
        if wanted.layer != TRUTH:
            mask_HW = session.masks.mask(wanted)
            session.warm_up()  # not before there is something to see
            return _png(pictures.mask_png(mask_HW))
        truth_HW = session.images.truth(wanted.row)
        if truth_HW is None:
            raise HTTPException(404, "this image has no truth")
        return _png(pictures.mask_png(truth_HW))

    def score(request: Request) -> Response:
        is_word = request.query_params.get("class") == WORD
        return _png(
            pictures.share_png(session.masks.score(shown(request), None if is_word else _number(request, "class", 0)))
        )

    def contest(request: Request) -> Response:
        return _png(pictures.share_png(session.masks.contest(shown(request))[0]))

    def pairs(request: Request) -> Response:
        return _json(session.masks.pairs(shown(request)))

    def miou(request: Request) -> Response:
        return _json(session.miou(shown(request)))

    def job(request: Request) -> Response:
        return _json(session.job(request.path_params["name"]))

    def looking(request: Request) -> Response:
        return _json(session.looking())

    asked = {"photo": photo, "mask": mask, "score": score, "contest": contest, "pairs": pairs, "miou": miou}
    changes = {
        "words": session.ask_words,
        "word": session.ask_word,
        "try": session.try_words,
        "tags": session.change_tag,
        "tags/undo": session.undo_tag,
        "save": session.save,
    }
    routes = [
        Route("/", page),
        Route("/static/{name}", static),
        Route("/api/run", run),
        Route("/api/images", images),
        Route("/api/images/{row:int}", image),
        *(Route(f"/api/images/{{row:int}}/{name}", endpoint) for name, endpoint in asked.items()),
        Route("/api/jobs/{name}", job),
        Route("/api/looking", looking),
        *(Route(f"/api/{name}", _posted(change), methods=["POST"]) for name, change in changes.items()),
    ]
    handlers: Any = {HTTPException: _refused, InputError: _failed, OSError: _failed}
    return Starlette(routes=routes, exception_handlers=handlers)


def _posted(change: Callable[[dict[str, Any]], Any]) -> Callable[[Request], Any]:
    """An endpoint that takes JSON: an object."""

    async def endpoint(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise HTTPException(415, "send JSON (content type application/json)")
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BYTES:
                raise HTTPException(413, f"a request has at most {MOST_BYTES} bytes")
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            raise HTTPException(400, "the request is no valid JSON") from None
        if not isinstance(data, dict):
            raise HTTPException(400, "the request must be a JSON object")
        return _json(await run_in_threadpool(change, data))

    return endpoint


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise InputError(f"{name} must be a number, got {text[:20]!r}")
    return int(text)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code)


def _failed(request: Request, error: Exception) -> Response:
    said = {"error": " ".join(str(error).split())}
    if isinstance(error, ConflictError):
        return _json(said | {"file": str(error.path)}, 409)
    return _json(said, 400)


def _json(content: Any, status: int = 200) -> Response:
    return Response(as_json(content), status, HEADERS, "application/json")


def _png(data: bytes) -> Response:
    return Response(data, media_type="image/png", headers=HEADERS)


def _file(path: Path) -> Response:
    return Response(path.read_bytes(), media_type=KINDS[path.suffix], headers=HEADERS)
