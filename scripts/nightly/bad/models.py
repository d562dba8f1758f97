"""Models that are none, or not the right ones, as files and inside archives; blocks of models that make no sense."""

import json
import struct
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np

from scripts.nightly.bad.case import DAMAGED, MODEL, Case, changed
from scripts.nightly.fuzzing.parts import ModelParts, Parts, take_apart, take_model_apart
from scripts.nightly.fuzzing.tiny import IMAGES, SERIES, model_bytes, packed, pictures, series
from vaedensity.archive.block import LOST, Codec, Kind
from vaedensity.archive.block import SERIES as SERIES_BLOCK

SINGLE, COUPLED = Codec(Kind.MODEL), Codec(Kind.MODEL, coupled=True)

WEIGHT, BIAS, SHIFT = (f"integer/stem/{part}" for part in ("weight", "bias", "shift"))


def wanting() -> bytes:
    """An archive of five 4x4 images in one block of a model that is not inside."""
    return packed({"x": pictures(IMAGES, 5)}, model=model_bytes(IMAGES), inside=False, codec=SINGLE)


def blocks() -> Iterator[Case]:
    """Blocks that a model codes; the model is inside."""
    one = packed({"x": pictures(IMAGES, 5)}, model=model_bytes(IMAGES), codec=SINGLE)
    two = packed({"x": pictures(IMAGES, 5)}, model=model_bytes(IMAGES), codec=COUPLED, particles=2)

    def case(name: str, change: Callable[[Parts], Any], whole: bytes = one, status: int = DAMAGED) -> Case:
        parts = take_apart(whole)
        change(parts)
        return Case(name, status, parts.together())

    def record(**changes: Any) -> Callable[[Parts], None]:
        def change(parts: Parts) -> None:
            old = parts.record
            parts.text = json.dumps(old | {"model": old["model"] | changes}).encode()

        return change

    def entry(**changes: Any) -> Callable[[Parts], None]:
        def change(parts: Parts) -> None:
            old = parts.record
            parts.text = json.dumps(old | {"arrays": [old["arrays"][0] | changes, *old["arrays"][1:]]}).encode()

        return change

    payload = take_apart(one).parts[0].payload
    for name, new in {
        "empty": b"",
        "no-direct-item": b"\0" + payload[3:],
        "direct-item-not-first": b"\1\1\1" + payload[3:],
        "direct-items-beyond": b"\1\0\6" + payload[3:],
        "direct-items-of-none": b"\1\0\0" + payload[3:],
        "words-not-whole": payload + b"\1",
        "words-end-with-zero": payload + bytes(4),
        "words-missing": payload[:3],
        "words-altered": payload[:3] + bytes([payload[3] ^ 1]) + payload[4:],
        "words-too-many": payload + b"\1" * 4000,
        "words-more": payload + b"\1" * 4,
    }.items():
        yield case(f"block-{name}", lambda p, new=new: changed(p.parts[0], payload=new))
    yield case("block-items-checksum", lambda p: changed(p.parts[0], items_checksum=1))
    yield case("block-coupled-without-particles", lambda p: changed(p.parts[0], codec=COUPLED.byte))
    yield case("block-not-coupled-with-particles", lambda p: changed(p.parts[0], codec=SINGLE.byte), two)
    yield case("block-of-series-of-images", lambda p: changed(p.parts[0], codec=SERIES_BLOCK.byte))
    yield case("block-item-coded-twice", lambda p: changed(p.parts[0], payload=b"\1\0\1\1\0\1" + payload[3:]), two)
    yield case("block-without-a-layout", entry(layout=None))
    yield case("block-too-long-a-chain", lambda p: changed(p.parts[0], items=4097))
    yield case("particles-of-an-archive-without", record(particles=2))
    yield case("model-inside-of-another-hash", record(sha256="0" * 64), status=MODEL)
    yield case("model-inside-coded-by-itself", lambda p: changed(p.parts[1], codec=SINGLE.byte))
    yield case("model-inside-damaged", lambda p: p.parts[1].said.update(checksum=0))
    yield case("model-inside-lost", lambda p: changed(p.parts[1], codec=LOST.byte, payload=b"", items_checksum=0))
    nothing = np.zeros(50, "<i2")
    yield Case("model-inside-is-none", MODEL, with_inside(one, nothing))
    of_series = np.frombuffer(model_bytes(SERIES), "<i2")
    yield Case("model-inside-is-another", MODEL, with_inside(one, of_series))
    other = take_apart(packed({"x": pictures(IMAGES, 5)[:, :3]}))
    other.parts[0].codec = SINGLE.byte
    whole = take_apart(one)
    entries = whole.record["arrays"]
    shape = [5, 3, 4]
    whole.text = json.dumps(whole.record | {"arrays": [entries[0] | {"shape": shape}, entries[1]]}).encode()
    yield Case("block-of-another-shape-than-the-model", DAMAGED, whole.together())
    yield from of_no_model()


def with_inside(whole: bytes, inside: np.ndarray) -> bytes:
    """``whole`` with other bytes in the place of the model inside."""
    parts, fresh = take_apart(whole), take_apart(packed({"m": inside}))
    record = parts.record
    record["arrays"][1]["shape"] = [len(inside)]
    parts.text = json.dumps(record).encode()
    fresh.parts[0].array = 1
    parts.parts[1], parts.digests[1] = fresh.parts[0], fresh.digests[0]
    return parts.together()


def of_no_model() -> Iterator[Case]:
    """Blocks of a model where there is none to be had."""
    yield Case("needs-a-model", MODEL, wanting())
    parts = take_apart(wanting())
    record = parts.record
    del record["model"]
    yield Case("block-of-a-model-that-is-not-named", DAMAGED, parts.with_record(record).together())
    coded = packed({"x": series(SERIES, 5)}, model=model_bytes(SERIES), inside=False)
    parts = take_apart(coded)
    parts.parts[0].codec = SINGLE.byte
    yield Case("block-of-images-of-series", DAMAGED, parts.together())


def bound(model: ModelParts) -> None:
    """The largest weights that there are, all of them: sums go beyond 2^24."""
    begin, end = model.tensors[WEIGHT]["data_offsets"]
    model.data = model.data[:begin] + b"\xff\x7f" * ((end - begin) // 2) + model.data[end:]


def put(tensor: str, data: bytes) -> Callable[[ModelParts], None]:
    """The first bytes of a tensor."""

    def change(model: ModelParts) -> None:
        begin, _ = model.tensors[tensor]["data_offsets"]
        model.data = model.data[:begin] + data + model.data[begin + len(data) :]

    return change


def said(**changes: Any) -> Callable[[ModelParts], None]:
    return lambda model: model.record.update(changes)


def configured(**changes: Any) -> Callable[[ModelParts], None]:
    return lambda model: model.record["config"].update(changes)


def without(tensor: str) -> Callable[[ModelParts], None]:
    """The tensor left out, its bytes given to none other: the bytes of the last one are dropped, others move up."""

    def change(model: ModelParts) -> None:
        begin, end = model.tensors.pop(tensor)["data_offsets"]
        model.data = model.data[:begin] + model.data[end:]
        for facts in model.tensors.values():
            facts["data_offsets"] = [at - (end - begin) if at > begin else at for at in facts["data_offsets"]]

    return change


def kinds(**facts: Any) -> Callable[[ModelParts], None]:
    return lambda model: model.tensors[WEIGHT].update(facts)


def renamed(model: ModelParts) -> None:
    model.tensors["pickle/stem/weight"] = model.tensors.pop(WEIGHT)


LARGEST = {"latents": [[2 ** (6 - i), 64] for i in range(6)], "widths": [512] * 6, "blocks": 16, "sub_image_blocks": 16}
MODELS: dict[str, Callable[[ModelParts], Any]] = {
    "never-released": said(format=4),
    "version-99": said(version=99),
    "version-missing": said(version=None),
    "kind-missing": lambda model: model.record["config"].pop("kind"),
    "config-field-missing": lambda model: model.record["config"].pop("blocks"),
    "sha256-missing": lambda model: model.record.pop("sha256"),
    "no-config": said(config=None),
    "kind-unknown": configured(kind="audio"),
    "height-text": configured(height="4"),
    "height-0": configured(height=0),
    "height-too-large": configured(height=513),
    "levels-257": configured(levels=257),
    "factors": configured(latents=[[4, 1]]),
    "unit-100": said(unit=100),
    "field-unknown": configured(depth=3),
    "values-the-same": said(values=[3, 3]),
    "values-of-many-levels": said(values=[0, 1]),
    "card-no-object": said(card=[1]),
    "card-without-rate": said(card={}),
    "card-rate-nan": said(card={"integer_bits_per_dim": float("nan")}),
    "steps-missing": said(direct_steps=[]),
    "steps-three": said(direct_steps=[[3]]),
    "steps-no-list": said(direct_steps=5),
    "no-start": without("integer/start"),
    "no-bias": without(BIAS),
    "name-unknown": renamed,
    "weights-int32": kinds(dtype="I32", shape=[4, 3, 3]),
    "weights-other-shape": kinds(shape=[8, 1, 3, 3]),
    "weights-beyond-the-file": kinds(data_offsets=[0, 10**9]),
    "weights-overlap": kinds(data_offsets=[0, 144]),
    "bound-broken": bound,
    "bias-too-large": put(BIAS, b"\xff\xff\xff\x7f"),
    "shift-too-large": put(SHIFT, b"\x15"),
    "shift-too-small": put(SHIFT, b"\xfb"),
    "start-too-large": put("integer/start", b"\0\0\x10\0"),
    "streams-beyond": put(SHIFT, b"\xfc\xfc"),
    "asks-for-gigabytes": configured(**LARGEST, height=512, width=512),
    "asks-for-another-width": configured(widths=[3]),
}


def models() -> Iterator[Case]:
    """Model files, each to be used for the archive that needs a model. None of them claims to be that model."""
    sound = model_bytes(IMAGES, seed=1)

    def case(name: str, data: bytes) -> Case:
        return Case(f"model-{name}", MODEL, data, suffix=".safetensors")

    for name, change in MODELS.items():
        model = deepcopy(take_model_apart(sound))
        change(model)
        yield case(name, model.together())
    model = take_model_apart(model_bytes(IMAGES, slim=False, seed=1))
    for name, number in (("nan", float("nan")), ("infinity", float("inf"))):
        begin, _ = next(facts for key, facts in model.tensors.items() if key.startswith("float/"))["data_offsets"]
        model.data = model.data[:begin] + struct.pack("<f", number) + model.data[begin + 4 :]
        yield case(name, model.together())
    model = take_model_apart(sound)
    model.record["sha256"] = "0" * 64
    yield case("sha256-of-another", model.together(signed=False))
    yield case("empty", b"")
    yield case("text", b"hello " * 20)
    yield case("cut-off", sound[:-100])
    yield case("header-cut-off", sound[:100])
    yield case("header-too-long", struct.pack("<Q", 1 << 23) + sound[8:])
    yield case("header-beyond-all", b"\xff" * 8 + sound[8:])
    yield case("record-no-json", model.together("{"))
    yield case("record-deep", model.together("[" * 5_000))
    yield case("record-a-list", model.together("[]"))
    yield case("of-pickle", b"\x80\x04\x95" + bytes(97))
    yield case("another", model_bytes(SERIES))
