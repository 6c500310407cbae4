"""Reading images and label maps, resizing, normalising. BGR stops here: everything returned is RGB.

Shapes: H W pixels. Arrays are numpy, channels last, until `to_pixels`.
"""

import contextlib
import io
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from labelgen.files import read_bytes
from labelgen.samples import InputError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SILENT = -1e4  # a score that no engine gives, for a class that is not judged
# A header may promise pixels that no memory holds, from a few bytes. PIL's own limits lie above.
MAX_PIXELS = 1 << 26  # 8192 x 8192: of an image, and of a view of it
MAX_BYTES = 8 * MAX_PIXELS  # 16 bits of red, green, blue and alpha, not compressed

# A broken file is reported once, by us, with its path.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.simplefilter("error", Image.DecompressionBombWarning)


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """image_HW3: uint8 RGB in 0..255, turned upright by its EXIF tag.

    Raises FileNotFoundError, and InputError for a file that is truncated, no image, or of more than MAX_PIXELS.
    """
    bgr = _decode(path, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(bgr[..., ::-1])


def read_label_map(path: str | Path) -> NDArray[np.uint8]:
    """label_HW: uint8 raw ids, exactly as stored.

    Raises FileNotFoundError, and InputError for a broken file, colours instead of ids, or more than 8 bits.
    """
    label = _decode(path, cv2.IMREAD_UNCHANGED)
    if label.ndim != 2 or label.dtype != np.uint8:
        raise InputError(f"{path} must hold one 8-bit id a pixel, got {label.dtype} of shape {label.shape}")
    return label


def _decode(path: str | Path, flags: int) -> NDArray[np.uint8]:
    data = read_bytes(path, MAX_BYTES)  # raises FileNotFoundError, and works for any file name
    _check_complete(path, data)
    with open_image(path, io.BytesIO(data)), contextlib.suppress(cv2.error):  # of a side of a million pixels
        if (decoded := cv2.imdecode(np.frombuffer(data, np.uint8), flags)) is not None:
            return decoded  # type: ignore[return-value]
    raise _no_image(path)


@contextlib.contextmanager
def open_image(name: object, file: BinaryIO) -> Iterator[Image.Image]:
    """An image of which the header has been read, and no pixel. Raises InputError for none, or more than MAX_PIXELS.

    name: what a message calls it.
    """
    try:
        image = Image.open(file)
        width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name} is too large ({error}); {MAX_PIXELS:,} pixels are the most, resize it") from error
    except Exception as error:  # broken files raise errors of many kinds
        raise _no_image(name) from error
    with image:
        require_size(height, width, f"{name} is")
        yield image


def require_size(height: float, width: float, what: str) -> None:
    """Raise InputError for more than MAX_PIXELS. what: "FILE is", "a view would be"."""
    if not height * width <= MAX_PIXELS:
        raise InputError(f"{what} {height:,.0f} x {width:,.0f} pixels large; {MAX_PIXELS:,} are the most, resize it")


def _no_image(name: object) -> InputError:
    return InputError(f"{name} cannot be read as an image; replace the file or take it out of the split")


def _check_complete(path: str | Path, data: bytes) -> None:
    """OpenCV fills the missing half of a truncated file with grey and says nothing."""
    ends = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}
    for start, end in ends.items():
        if data.startswith(start) and end not in data[-1024:]:
            raise InputError(f"{path} is truncated; copy it again or take it out of the split")


def read_class_map(path: str | Path) -> NDArray[np.uint8]:
    """(H, W) uint8 ids of a grey or indexed PNG: what `write_indexed_png` wrote.

    Raises FileNotFoundError, and InputError for a broken file or one in colours.
    """
    data = read_bytes(path, MAX_BYTES)
    _check_complete(path, data)
    with open_image(path, io.BytesIO(data)) as image:
        if image.mode not in ("L", "P"):
            raise InputError(f"{path} holds colours ({image.mode}); class maps are indexed or grey PNGs of ids")
        try:
            return np.array(image, np.uint8)
        except Exception as error:  # broken files raise errors of many kinds
            raise InputError(f"{path} cannot be read as an image; make it again") from error


def write_png(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write (H, W) ids or (H, W, 3) RGB, under a temporary name first: no half-written file is ever seen."""
    path = Path(path)
    ok, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
    assert ok
    partial = _partial(path)
    partial.write_bytes(data.tobytes())
    partial.replace(path)


def write_indexed_png(path: str | Path, ids_HW: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> None:
    """Write (H, W) ids as a PNG that shows them in colours, black where the palette ends; first under another name."""
    path = Path(path)
    image = Image.fromarray(ids_HW)
    image.putpalette(np.array(palette, np.uint8).tobytes().ljust(3 * 256, b"\0"))
    partial = _partial(path)
    image.save(partial, format="png")
    partial.replace(path)


def _partial(path: Path) -> Path:
    """Another name beside it, short, for that of an image may be as long as names can be."""
    return path.with_name(f"{zlib.crc32(os.fsencode(path.name)):08x}.partial")


def resize_image(image_HW3: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Bilinear to (height, width), averaged over areas when shrinking. Raises InputError for more than MAX_PIXELS."""
    require_size(height, width, "resized, an image would be")
    if image_HW3.shape[:2] == (height, width):
        return image_HW3
    shrinks = height < image_HW3.shape[0] and width < image_HW3.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image_HW3, (width, height), interpolation=interpolation).astype(np.uint8)


def normalise(
    image_HW3: NDArray[np.uint8], mean: tuple[float, ...] = CLIP_MEAN, std: tuple[float, ...] = CLIP_STD
) -> NDArray[np.float32]:
    """pixels_3HW: float32, (image / 255 - mean) / std, channels first."""
    scale = 1 / (255 * np.array(std, np.float32))
    shift = np.array(mean, np.float32) / np.array(std, np.float32)
    return np.ascontiguousarray((image_HW3 * scale - shift).transpose(2, 0, 1))


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as `read_image` will return it, from the file's header alone. Raises InputError."""
    with Path(path).open("rb") as file, open_image(path, file) as image:
        return (image.width, image.height) if _is_turned(image) else (image.height, image.width)


def _is_turned(image: Image.Image) -> bool:
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))  # image.getexif() decodes a whole PNG
        return bool(exif.get(ExifTags.Base.Orientation, 1) >= 5)
    except Exception:  # a broken tag turns nothing; OpenCV sees it alike
        return False


def bilinear_weights(positions: NDArray[np.floating], cells: int) -> NDArray[np.float32]:
    """Rows of weights (len(positions), cells) that sample a row of `cells` values at real-valued positions.

    Cell k has its centre at k + 0.5; positions beyond the outer centres take the outer cell. Two of these matrices
    warp a map of logits in one product, rows @ logits_hw @ columns.T, whatever the crop, scale and flip.
    """
    centred = np.clip(positions - 0.5, 0, cells - 1)
    lower = np.minimum(centred.astype(np.int64), max(cells - 2, 0))
    upper = np.minimum(lower + 1, cells - 1)
    share = (centred - lower).astype(np.float32)
    rows = np.arange(len(positions))
    weights = np.zeros((len(positions), cells), np.float32)
    weights[rows, lower] += 1 - share
    weights[rows, upper] += share
    return weights


def resize_logits(logits_Chw: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Bilinear to (C, height, width), where the corners of the outer cells are the corners of the image.

    NaN (nothing said) stays with the pixels that are nearest to its cell.
    """
    h, w = logits_Chw.shape[1:]
    rows = bilinear_weights((np.arange(height) + 0.5) * h / height, h)
    columns = bilinear_weights((np.arange(width) + 0.5) * w / width, w)
    is_silent_Chw = np.isnan(logits_Chw)
    if not is_silent_Chw.any():
        return np.asarray(rows @ logits_Chw @ columns.T, np.float32)
    resized = np.asarray(rows @ silenced(logits_Chw) @ columns.T, np.float32)
    resized[resized < SILENT / 2] = np.nan
    return resized


def silenced(logits_Chw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits with SILENT in place of NaN, which would not stay in its cell when maps are warped."""
    return np.nan_to_num(logits_Chw, nan=SILENT)
