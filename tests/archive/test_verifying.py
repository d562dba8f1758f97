"""What is packed is decoded and compared before it is written: a coder that goes wrong costs bytes or is refused,
never data."""

import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import pack, patched, same, unpack
from model_cases import Items, network

from vaedensity.archive import fallback
from vaedensity.coding import engine as chains
from vaedensity.errors import VaedensityError

ZEROS = np.zeros(500, np.uint8)


def test_raw_bytes_where_a_fallback_coder_goes_wrong(tmp_path: Path) -> None:
    def wrong(data: bytes) -> bytes:
        return lzma.compress(b"x" + data[1:], lzma.FORMAT_RAW, filters=fallback._FILTERS)

    for broken in (wrong, lambda data: b""):
        with patched(archive__fallback___lzma=broken, archive__fallback__deflate=lambda data: b"\0" * 600):
            assert pack(tmp_path / "a.vdz", {"x": ZEROS}).payload_bytes == 500
        assert same(unpack(tmp_path / "a.vdz")["x"], ZEROS)


def altered(*arguments: Any) -> list[np.ndarray]:
    return [part ^ 1 for part in chains.__dict__["honest"](*arguments)]


def failing(error: Exception) -> Any:
    def fail(*arguments: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("decode", "says"),
    [
        (altered, "arithmetic is not exact"),
        (failing(ValueError("bits are left over")), "arithmetic is not exact"),
        (failing(RuntimeError("can't allocate memory")), "not enough memory"),
    ],
)
def test_a_model_that_goes_wrong_is_refused(
    decode: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "honest", chains.decode_chains, raising=False)
    monkeypatch.setattr(chains, "decode_chains", decode)
    array = Items("grey", 3, "ramps", 0).make()
    with pytest.raises(VaedensityError, match=says):
        pack(tmp_path / "a.vdz", {"x": array}, network("grey")[0])
    pack(tmp_path / "a.vdz", {"x": array}, network("grey")[0], verify=False)
