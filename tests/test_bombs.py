"""Files made to keep a reader busy, or to take memory out of all proportion: refused within seconds."""

import struct
import time
import zlib
from pathlib import Path

import pytest
from conftest import invoke

from scripts.nightly.bad.layouts import base
from scripts.nightly.bad.restore_metadata import BYTES, meta, noted
from scripts.nightly.fuzzing.parts import Parts, put_varint
from vaedensity.archive.block import LOST
from vaedensity.archive.block_header import MARKER, scan
from vaedensity.archive.reader import ArchiveFile
from vaedensity.errors import DamagedArchive
from vaedensity.model.config import VAEConfig
from vaedensity.model.kinds import outline

DAMAGED, SECONDS = 3, 20


@pytest.fixture(autouse=True)
def in_time() -> object:
    started = time.process_time()
    yield
    assert time.process_time() - started < SECONDS


def block_header(length: int, first: int, archive_id: bytes) -> bytes:
    """One whose own check is right, of a payload whose checksum is not."""
    out = MARKER + put_varint(0) + put_varint(first) + put_varint(1) + b"\0" + put_varint(length) + bytes(8)
    return out + struct.pack("<H", zlib.crc32(archive_id + out) & 0xFFFF)


def with_blocks(folder: Path, blocks: bytes) -> Path:
    """An archive whose record is right, then these bytes and no index."""
    whole = base().together()
    begin = 20 + struct.unpack_from("<I", whole, 12)[0]
    path = folder / "x.vdz"
    path.write_bytes(whole[:begin] + blocks)
    return path


def test_repair_of_a_file_full_of_markers(tmp_path: Path) -> None:
    path = with_blocks(tmp_path, MARKER * 500_000)
    assert invoke("repair", path, "-o", tmp_path / "out.vdz").exit_code == DAMAGED
    with ArchiveFile(tmp_path / "out.vdz") as archive:
        assert [(block.codec, block.items) for block in archive.blocks] == [(LOST, 4)]


def test_repair_of_block_headers_that_claim_each_other(tmp_path: Path) -> None:
    archive_id = base().together()[16:20]
    count, size = 50_000, len(block_header(1 << 20, 1 << 20, archive_id))
    path = with_blocks(tmp_path, b"".join(block_header(size * count // 2, 1 << 20, archive_id) for _ in range(count)))
    result = invoke("repair", path, "-o", tmp_path / "out.vdz")
    assert result.exit_code == DAMAGED and "claim each other's bytes" in result.stderr
    assert not (tmp_path / "out.vdz").exists()


def test_blocks_are_found_wherever_windows_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = base().together()
    begin = 20 + struct.unpack_from("<I", whole, 12)[0]
    block = whole[begin : begin + 29]
    path = tmp_path / "x"
    expected = []
    data = bytearray()
    for gap in (0, 1, 2, 7, 30, 61, 64, 0, 0, 3):
        data += (MARKER + b"\xd7") * gap
        expected.append(len(data))
        data += block
    path.write_bytes(data)
    for window in (64, 65, 100, 127, 1 << 20):
        monkeypatch.setattr("vaedensity.archive.block_header.WINDOW", window)
        with open(path, "rb") as f:
            assert [at for at, _, _ in scan(f, 0, len(data), whole[16:20])] == expected


def test_names_of_many_parts(tmp_path: Path) -> None:
    names = [f"{'a/' * 16_000}{k}" for k in range(40)] + ["b", "b/c"]
    metas = [meta(kind="npz", name=name, arrays={} if k else {"x": "x"}) for k, name in enumerate(names)]
    path = tmp_path / "x.vdz"
    path.write_bytes(noted(BYTES, *metas))
    result = invoke("-q", "test", path)
    assert result.exit_code == DAMAGED and "in each other's way" in result.stderr


def test_an_index_of_more_blocks_than_the_file_has_room_for(tmp_path: Path) -> None:
    parts: Parts = base()
    count = 1 << 24
    parts.index = bytes(32) + put_varint(count) + bytes(4 * count)
    path = tmp_path / "x.vdz"
    path.write_bytes(parts.together())
    with pytest.raises(DamagedArchive, match=f"{count} blocks in"):
        ArchiveFile(path)


def test_the_outline_of_the_largest_network_takes_no_memory() -> None:
    latents = tuple((2 ** (6 - i), 64) for i in range(6))
    largest = VAEConfig(512, 512, 3, 256, latents, (512,) * 6, 16, 16, 32, 128, 8, 7)
    weights = list(outline(largest).parameters())
    memory = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in weights}
    assert sum(p.numel() for p in weights) > 1 << 30 and sum(memory.values()) < 1 << 24


def test_messages_are_lines_that_a_terminal_shows_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.vdz"
    path.write_bytes(noted(BYTES, meta(kind="a\nb\x1b[2J\u202e")))
    for command in ("test", "decompress"):
        result = invoke("-q", command, path)
        assert result.exit_code == DAMAGED and result.stderr.count("\n") == 1
        assert result.stderr.rstrip("\n").isprintable()
