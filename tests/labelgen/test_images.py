from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from labelgen.images import (
    bilinear_weights,
    image_size,
    normalise,
    read_image,
    read_label_map,
    resize_image,
    resize_logits,
    write_png,
)
from labelgen.samples import InputError

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (7, 5, 3), np.uint8)


def test_png_round_trip_keeps_rgb_order(tmp_path: Path) -> None:
    write_png(tmp_path / "ä b.png", PICTURE)
    np.testing.assert_array_equal(read_image(tmp_path / "ä b.png"), PICTURE)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "ä b.png")), PICTURE)
    assert [p.name for p in tmp_path.iterdir()] == ["ä b.png"]


def test_exif_rotation_is_applied_to_pixels_and_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (30, 20, 3)
    assert image_size(tmp_path / "a.jpg") == (30, 20)


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_other_pixel_formats_are_read_as_rgb(tmp_path: Path, mode: str) -> None:
    source = np.zeros((4, 6), np.uint16) if mode == "I;16" else PICTURE[:4, :5]
    image = Image.fromarray(source) if mode == "I;16" else Image.fromarray(source).convert(mode)
    image.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="is truncated"):
        read_image(path)


def test_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"hello"):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as an image"):
            read_image(tmp_path / "a.png")
        with pytest.raises(InputError, match="cannot be read as an image"):
            image_size(tmp_path / "a.png")


def test_coloured_label_map_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", PICTURE)
    with pytest.raises(InputError, match="one 8-bit id a pixel"):
        read_label_map(tmp_path / "a.png")


@pytest.mark.parametrize(("cells", "size"), [(5, 17), (4, 4), (6, 3), (1, 9), (2, 1)])
def test_bilinear_weights_equal_torch_interpolate(cells: int, size: int) -> None:
    row = RNG.standard_normal(cells).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(row)[None, None, None], size=(1, size), mode="bilinear").flatten()
    weights = bilinear_weights((np.arange(size) + 0.5) * cells / size, cells)
    np.testing.assert_allclose(weights @ row, expected, atol=1e-5)


def test_resized_logits_equal_torch_interpolate() -> None:
    logits = RNG.standard_normal((3, 4, 5)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(logits)[None], size=(13, 11), mode="bilinear")[0]
    np.testing.assert_allclose(resize_logits(logits, 13, 11), expected, atol=1e-5)


def test_normalise_and_resize_keep_their_contract() -> None:
    pixels = normalise(np.full((2, 3, 3), 255, np.uint8), (0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    assert (pixels.shape, pixels.dtype) == ((3, 2, 3), np.float32)
    np.testing.assert_allclose(pixels[:, 0, 0], [2.0, 1.0, 0.5], rtol=1e-6)
    assert resize_image(PICTURE, 14, 3).shape == (14, 3, 3)
