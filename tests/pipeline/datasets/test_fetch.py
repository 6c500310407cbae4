"""Fetching, against a real server on this machine: resuming, refusing, and never touching what is there."""

import errno
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from labelgen.samples import InputError
from pipeline.datasets import DATASETS
from pipeline.datasets.fetch import PublicCopy, download, fetch, unpack
from tests.conftest import carbseg
from tests.files import image, label

COUNTS = {"train": 2, "trainannot": 2}


class Server(ThreadingHTTPServer):
    """Serves one archive at /a.zip; `breaks_at`: the next answer stops after so many bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.has_ranges, self.breaks_at, self.asked = b"", True, 0, list[str | None]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/a.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if self.path != "/a.zip":
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.has_ranges else 0
        if start >= len(server.data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.data)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.data) - start))
        self.end_headers()
        self.wfile.write(server.data[start : server.breaks_at or None])
        server.breaks_at = 0

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    """A zip of two images and their labels, deep inside, beside other things."""
    folder = tmp_path / "packed" / "Tutorial-master" / "CamVid"
    for name in "ab":
        image(folder / "train" / f"{name}.png")
        label(folder / "trainannot" / f"{name}.png", [[0, 3, 8], [0, 3, 11]])
    (folder.parent / "README.md").write_text("hello")
    (folder.parent / "Models" / "train").mkdir(parents=True)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for path in sorted((tmp_path / "packed").rglob("*")):
            packed.write(path, path.relative_to(tmp_path / "packed"))
    return data.getvalue()


def test_a_copy_is_fetched_counted_and_read_like_any_other(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.data, root = archive, tmp_path / "data" / "camvid"
    root.mkdir(parents=True)  # empty: fine
    fetch(PublicCopy(server.url, COUNTS), root)
    assert [s["image_labels"] for s in DATASETS["camvid"].list_samples(root, "train")] == [[0, 3, 8]] * 2
    assert list(root.parent.iterdir()) == [root]  # nothing is left over
    with pytest.raises(InputError, match="exists already, nothing was fetched"):
        fetch(PublicCopy(server.url, COUNTS), root)


def test_a_broken_download_goes_on_where_it_was(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.data, server.breaks_at = archive, 100
    copy, root, progress = PublicCopy(server.url, COUNTS), tmp_path / "camvid", list[tuple[int, int | None]]()
    with pytest.raises(InputError, match=f"broke after 100 of {len(archive):,} bytes; give the same command again"):
        fetch(copy, root)
    assert not root.exists()
    fetch(copy, root, lambda done, total: progress.append((done, total)))
    assert server.asked == [None, "bytes=100-"]
    assert progress == [(len(archive), len(archive))]
    assert (root / "train" / "a.png").is_file()


def test_a_server_without_ranges_begins_again(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.data, server.has_ranges, partial = archive, False, tmp_path / "a.partial"
    partial.write_bytes(b"x" * 50)
    download(server.url, partial)
    assert partial.read_bytes() == archive


def test_a_whole_partial_file_is_taken_and_a_longer_one_is_not(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.data, partial = archive, tmp_path / "a.partial"
    partial.write_bytes(archive)
    download(server.url, partial)
    assert partial.read_bytes() == archive
    partial.write_bytes(archive + b"more")
    with pytest.raises(InputError, match="was not the beginning of .* and was removed; give the same command again"):
        download(server.url, partial)
    assert not partial.exists()


def test_a_missing_file_a_dead_server_and_a_bad_address_are_said(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="answered 404 Not Found; give the address of another copy with --url"):
        download(server.url.replace("a.zip", "b.zip"), tmp_path / "p")
    with pytest.raises(InputError, match="cannot reach http://127.0.0.1:1/a.zip .*; check the network"):
        download("http://127.0.0.1:1/a.zip", tmp_path / "p")
    with pytest.raises(InputError, match="'camvid.zip' is no address"):
        download("camvid.zip", tmp_path / "p")


def test_wrong_counts_and_other_archives_are_refused(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.data, root = archive, tmp_path / "camvid"
    with pytest.raises(InputError, match="train in .* holds 2 images, not 367; give the address of another copy"):
        fetch(PublicCopy(server.url, {"train": 367}), root)
    with pytest.raises(InputError, match="holds no folder with images, labels"):
        fetch(PublicCopy(server.url, {"images": 1, "labels": 1}), root)
    server.data = archive[:-30]
    with pytest.raises(InputError, match="the downloaded archive cannot be unpacked"):
        fetch(PublicCopy(server.url, COUNTS), root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packed"]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.datasets.fetch.download", full)
    with pytest.raises(InputError, match="is full; free some space, then give the same command again"):
        fetch(PublicCopy("http://127.0.0.1/a.zip", COUNTS), tmp_path / "camvid")


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..\\evil"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_reaches_out_is_refused_and_nothing_is_written(name: str, kind: str, tmp_path: Path) -> None:
    path, inside = tmp_path / f"a.{kind}", tmp_path / "inside" / "deep"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("good", "data")
            packed.writestr(name, "data")
    else:
        with tarfile.open(path, "w:gz") as packed_tar:
            packed_tar.addfile(tarfile.TarInfo("good"))
            packed_tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(InputError, match="would write outside its folder"):
        unpack(path, inside)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [path.name]


def test_a_link_that_leads_out_of_a_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as packed:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../evil"
        packed.addfile(link)
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(tmp_path / "a.tar", tmp_path / "inside")


def test_the_command_fetches_or_says_where_to_get_what(server: Server, archive: bytes, tmp_path: Path) -> None:
    server.data = archive
    done = carbseg("datasets", "fetch", "camvid", tmp_path / "camvid", "--url", server.url, check=False)
    assert done.returncode == 1
    assert "holds 2 images, not 367" in done.stderr or "holds no folder with train, trainannot, val" in done.stderr
    done = carbseg("datasets", "fetch", "cityscapes", tmp_path / "cs", check=False)
    assert done.returncode == 1
    assert "get leftImg8bit_trainvaltest.zip" in done.stdout
    assert "leftImg8bit/SPLIT/CITY/ID_leftImg8bit.png" in done.stdout
    assert not (tmp_path / "cs").exists()
