"""Every rival gives every kind of images back, in every layout."""

import numpy as np
import pytest

from vaedensity.api import rivals
from vaedensity.api.rivals import known_rivals, lay_out, mosaics

RNG = np.random.default_rng(0)
IMAGES = {
    "grey": RNG.integers(0, 256, (7, 9, 5)).astype(np.uint8),
    "colour": RNG.integers(0, 256, (5, 6, 8, 3)).astype(np.uint8),
    "two-valued": (RNG.random((11, 8, 8)) < 0.3).astype(np.uint8) * np.uint8(255),
    "one pixel": np.full((1, 1, 1), 7, np.uint8),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_rivals_give_the_data_back(kind: str) -> None:
    images = IMAGES[kind]
    for rival in known_rivals(kind == "two-valued").values():
        for layout in rival.layouts:
            for piece in lay_out(images, layout):
                if rival.name == "JPEG-LS" and piece.size == 1:
                    continue  # imagecodecs refuses an image of one pixel
                back = rival.codec.decode(rival.codec.encode(piece))
                assert np.array_equal(back.reshape(-1), piece.reshape(-1)), (rival.name, layout)


def test_mosaics_hold_every_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    images = IMAGES["colour"]
    (picture,) = mosaics(images)
    assert picture.shape[2] == 3 and picture.astype(int).sum() == images.astype(int).sum()
    assert np.array_equal(picture[:6, :8], images[0])
    monkeypatch.setattr(rivals, "LONGEST_SIDE", 40)
    many = np.arange(1, 251, dtype=np.uint8)[:, None, None].repeat(6, 1).repeat(3, 2)
    pictures = mosaics(many)
    assert len(pictures) > 1 and all(max(p.shape) <= 40 for p in pictures)
    assert sum(int(p.sum(dtype=np.int64)) for p in pictures) == int(many.sum(dtype=np.int64))


def test_two_valued_images_may_be_packed() -> None:
    (packed,) = lay_out(IMAGES["two-valued"], "packed bits")
    assert packed.size == 11 * 8
    assert "packed bits" in known_rivals(True)["xz"].layouts and "packed bits" not in known_rivals(False)["xz"].layouts
