"""One command by both engines, and archives of several blocks of a model to try it on."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import framed
import goldens
import numpy as np
from conftest import invoke, tree

GOLDEN = "two-valued-v1"  # 40 items in one block
COUNT = 40


class Outcome(NamedTuple):
    """What a command left behind: exit status, its JSON record but for the time, its lines on stderr, the files."""

    status: int
    record: dict[str, Any] | None
    lines: list[str]
    files: dict[str, Any]


def by(engine: str, archive: Path, out: Path, *options: object) -> Outcome:
    """`decompress` by an engine into ``out``, made anew."""
    shutil.rmtree(out, ignore_errors=True)
    result = invoke("decompress", archive, "-o", out, "--engine", engine, "--json", *options)
    assert isinstance(result.exception, SystemExit) or result.exception is None, result.exception
    record = json.loads(result.stdout) if result.stdout else None
    if record is not None:
        assert record.pop("seconds") >= 0
    return Outcome(result.exit_code, record, result.stderr.splitlines(), tree(out) if out.exists() else {})


def by_both(archive: Path, out: Path, *options: object) -> Outcome:
    """What both engines do, which must be the same to the last byte."""
    torch, numpy = (by(engine, archive, out, *options) for engine in ("torch", "numpy"))
    assert numpy == torch
    return numpy


def chains(copies: int, array: int = 0) -> tuple[list[framed.Part], np.ndarray]:
    """The golden's block so many times, which one lockstep decodes, and what they hold."""
    _, (part,), _ = framed.of_golden(GOLDEN)
    items = goldens.arrays(GOLDEN)["images"]
    parts = [replace(part, array=array, first=COUNT * k) for k in range(copies)]
    return parts, np.concatenate([items] * copies)


def bad_words(part: framed.Part) -> framed.Part:
    """A block whose bytes have their checksum, but decode to nothing or to other items."""
    payload = bytearray(part.payload)
    payload[len(payload) // 2] ^= 4
    return replace(part, payload=bytes(payload))


def bad_payload(part: framed.Part) -> framed.Part:
    return replace(part, said={"checksum": 0})


def lost(part: framed.Part) -> framed.Part:
    return replace(part, coder=15, raw=b"", payload=b"", said={"items_checksum": 0})


def save(
    path: Path, arrays: dict[str, np.ndarray], parts: list[framed.Part], collections: Sequence[dict[str, Any]]
) -> Path:
    """An archive of ``arrays``, of which `images` are the golden's model's."""
    text, _, _ = framed.of_golden(GOLDEN)
    model = {"model": text["model"]} if "images" in arrays else {}
    text = framed.record(arrays, **model)
    text["meta"]["collections"] = list(collections)
    for described in text["arrays"]:
        described |= {"layout": "NHW"} if described["name"] == "images" else {}
    path.write_bytes(framed.written(text, parts, framed.digest(arrays)))
    return path
