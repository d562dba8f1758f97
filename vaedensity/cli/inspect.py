"""vaedensity list, info and models: what is inside, without the network."""

from pathlib import Path
from typing import Any

import click

from vaedensity.cli.arguments import ARCHIVE, ARCHIVE_OR_MODEL, expect_archive, expect_model, what_is
from vaedensity.cli.common import answer, guarded, json_option, mib, terminal_width

HEAD = 20  # rows that are shown unless all are asked for


def describe_archive(path: Path) -> dict[str, Any]:
    """What the header and the index of an archive say; decodes nothing and does not import torch."""
    from vaedensity.archive.block import LOST
    from vaedensity.archive.container import SENSELESS, VERSION
    from vaedensity.archive.reader import ArchiveFile
    from vaedensity.data.listing import rows_of
    from vaedensity.data.restore import count_items
    from vaedensity.data.restore_metadata import check_restore_metadata
    from vaedensity.errors import DamagedArchive, naming

    with naming(path), ArchiveFile(path) as archive:
        record, blocks = archive.record, archive.blocks
        stored = {a.name: a for a in archive.contents}
        try:
            metas = archive.restore
            if metas:
                check_restore_metadata(metas, list(stored))
            return {
                "archive": str(path),
                "version": VERSION,
                "bytes": path.stat().st_size,
                "arrays": [
                    {"name": a.name, "dtype": a.dtype.str, "shape": list(a.shape), "sha256": d.hex() if d else None}
                    for a, d in zip(archive.arrays, archive.digests)
                    if a is not archive.model_array
                ],
                "restores": [{"kind": str(n["kind"]), "name": str(n["name"]), "files": files_of(n)} for n in metas],
                "entries": [row for meta in metas for row in rows_of(meta, stored)],
                "model": archive.model and {"sha256": archive.model.sha256, "name": archive.model.name},
                "model_inside": archive.model_array is not None,
                "particles": archive.particles,
                "blocks": len(blocks),
                "model_blocks": sum(b.codec.by_model for b in blocks),
                "lost_blocks": sum(b.codec == LOST for b in blocks),
                "items": count_items(metas, {a.name: a.rows for a in archive.contents}),
                "written_by": record.get("by"),
            }
        except (*SENSELESS, OverflowError) as error:
            raise DamagedArchive(f"{path}: the header and the index make no sense ({error})") from error


def files_of(meta: dict[str, Any]) -> list[str] | None:
    """Names of what is in a folder; None of what is no folder."""
    if meta["kind"] != "tree":
        return None
    return [str(name) + ("/" if kind == "d" else "") for name, kind in zip(meta["entries"], meta["types"])]


def archive_lines(r: dict[str, Any], *, members: bool, most: int | None = HEAD) -> list[str]:
    """A summary and a table of what the archive restores, with or without the ``members`` of files and folders; at most
    ``most`` rows."""
    from vaedensity.report.tables import render

    model = f"model {r['model']['name']} (sha256 {r['model']['sha256'][:16]}...)" if r["model"] else "no model needed"
    model += ", which is inside" if r["model_inside"] else ""
    model += f", {r['particles']} particles" if r["particles"] > 1 else ""
    model += f", {r['lost_blocks']} of them lost" if r["lost_blocks"] else ""
    title = f"{r['archive']}: {mib(r['bytes'])}, {r['items']} items in {r['blocks']} blocks, {model}"
    entries = [entry for entry in r["entries"] if members or entry["of"] is None]
    rows = [
        [
            ("" if entry["of"] is None else "  ") + entry["name"],
            "" if entry["items"] is None else str(entry["items"]),
            "" if entry["shape"] is None else "x".join(map(str, entry["shape"])) or "scalar",
            entry["dtype"] or "",
            "" if entry["bytes"] is None else mib(entry["bytes"]),
        ]
        for entry in entries[:most]
    ]
    if not rows:
        return [title, "it restores nothing"]
    lines = render(title, ["name", "items", "of shape", "dtype", "size"], rows, terminal_width())
    more = len(entries) - len(rows)
    return [*lines, *([f"... and {more} more: list --all"] if more else [])]


def count_multiplications(path: Path, config: dict[str, Any]) -> int:
    """Needs the network, and so torch."""
    from vaedensity.errors import ModelError
    from vaedensity.model.kinds import config_from_json, multiplications, outline

    try:
        network = config_from_json(config)
        if (weights := sum(p.numel() for p in outline(network).parameters())) > path.stat().st_size:
            raise ValueError(f"{weights} weights, more than the file holds")
        return multiplications(network)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: its configuration is not usable ({error}); fit again") from error


@click.command("list")
@click.argument("archive", type=ARCHIVE)
@click.option("--all", "everything", is_flag=True, help=f"Show all rows, not the first {HEAD}.")
@json_option
@guarded
def list_command(archive: Path, everything: bool, as_json: bool) -> None:
    """What is inside ARCHIVE: names, items, their shapes and types, and sizes once restored (of images: pixels)."""
    expect_archive(archive)
    r = describe_archive(archive)
    answer(r, as_json, archive_lines(r, members=True, most=None if everything else HEAD))


@click.command("info")
@click.argument("target", type=ARCHIVE_OR_MODEL)
@click.option("--cost", "multiply", is_flag=True, help="Count a model's multiplications for one item, too.")
@json_option
@guarded
def info_command(target: str, multiply: bool, as_json: bool) -> None:
    """Facts about a MODEL (file or released name) or an ARCHIVE."""
    path = Path(target)
    if what_is(target) == "an archive":
        r = describe_archive(path)
        answer({"type": "archive", **r}, as_json, archive_lines(r, members=False))
        return
    expect_model(target)
    from vaedensity.errors import ModelError
    from vaedensity.model.released import record_of, resolve
    from vaedensity.numpy_decoder.model_file import read_model

    path = resolve(target)
    record = record_of(path)
    if not all(isinstance(record.get(part), dict) for part in ("config", "card")):
        raise ModelError(f"{path}: not a vaedensity model (no card or configuration); fit again")
    r = {
        "type": "model",
        "model": str(path),
        "bytes": path.stat().st_size,
        "sha256": read_model(path).sha256,
        **{k: record.get(k) for k in ("config", "values", "card", "unit")},
    }
    lines = [f"{path}: {mib(r['bytes'])}, sha256 {r['sha256']}"]
    if multiply:
        r["multiplications"] = count_multiplications(path, record["config"])
        lines.append(f"  multiplications for an item: {r['multiplications']}")
    for part in ("card", "config"):
        lines += [f"  {key}: {value}" for key, value in record[part].items()]
    answer(r, as_json, lines)


@click.command("models")
@json_option
@guarded
def models_command(as_json: bool) -> None:
    """The released checkpoints."""
    from vaedensity.model.released import record_of, released
    from vaedensity.numpy_decoder.model_file import read_model

    rows = []
    for name, path in released().items():
        record = record_of(path)
        config, card = record["config"], record["card"]
        series = config["kind"] == "sequence"
        shape = [1, config["length"], 1] if series else [config["height"], config["width"], config["channels"]]
        rows.append(
            {"name": name, "shape": shape, "levels": config["levels"], "bytes": path.stat().st_size, "card": card}
            | {"sha256": read_model(path).sha256}
        )
    lines = [
        f"{r['name']:<16} {r['shape'][1]}x{r['shape'][0]}x{r['shape'][2]}, {r['levels']} levels, {mib(r['bytes'])}, "
        f"{r['card'].get('integer_bits_per_dim', float('nan')):.4f} bits/dim on validation items, "
        f"sha256 {r['sha256'][:16]}..."
        for r in rows
    ]
    answer({"models": rows}, as_json, lines or ["no released models are installed"])
