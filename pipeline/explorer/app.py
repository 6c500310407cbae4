"""The addresses of the explorer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from labelgen.samples import InputError
from pipeline.explorer import pictures
from pipeline.explorer.session import OWN, Session

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def build_app(session: Session, token: str) -> Starlette:
    """The application, below /TOKEN/."""

    def answer(content: Any) -> Response:
        return JSONResponse(content, headers=HEADERS)

    def png(content: bytes) -> Response:
        return Response(content, media_type="image/png", headers=HEADERS)

    def page(request: Request) -> Response:
        return file("page.html")

    def static(request: Request) -> Response:
        return file(request.path_params["name"])

    def file(name: str) -> Response:
        known = {path.name: path for path in PAGE.iterdir() if path.suffix in KINDS}
        if name not in known:
            raise HTTPException(404, f"no file {name}")
        return Response(known[name].read_bytes(), media_type=KINDS[known[name].suffix], headers=HEADERS)

    def run(request: Request) -> Response:
        return answer(session.describe())

    def images(request: Request) -> Response:
        asked = request.query_params
        return answer(
            session.listing(asked.get("query", ""), number(asked, "offset", 0, 10**9), number(asked, "limit", 50, 200))
        )

    def row_of(request: Request) -> int:
        row = int(request.path_params["row"])
        if row >= len(session.store):
            raise HTTPException(404, f"no image {row}; there are {len(session.store)}")
        return row

    def image(request: Request) -> Response:
        return answer(session.about(row_of(request)))

    def photo(request: Request) -> Response:
        data = pictures.photo(session.sample(row_of(request))["image_path"])
        return Response(data, media_type="image/jpeg", headers=HEADERS)

    def mask(request: Request) -> Response:
        asked = request.query_params
        return png(
            pictures.mask_png(session.mask(row_of(request), asked.get("layer", "global"), asked.get("store", OWN)))
        )

    def failed(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400
        text = error.detail if isinstance(error, HTTPException) else " ".join(str(error).split())
        return JSONResponse({"error": text}, status, headers=HEADERS)

    routes = [
        Route("/", page),
        Route("/static/{name}", static),
        Route("/api/run", run),
        Route("/api/images", images),
        Route("/api/images/{row:int}", image),
        Route("/api/images/{row:int}/photo", photo),
        Route("/api/images/{row:int}/mask", mask),
    ]
    handlers: Any = {InputError: failed, HTTPException: failed, OSError: failed}
    return Starlette(routes=[Mount(f"/{token}", routes=routes)], exception_handlers=handlers)


def number(asked: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A number from a request. Raises InputError."""
    text = asked.get(name, str(default))
    if not text.isdecimal() or int(text) > most:
        raise InputError(f"{name} must be a number from 0 to {most}, got {text!r}")
    return int(text)
