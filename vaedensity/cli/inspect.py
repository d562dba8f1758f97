"""vaedensity list, info and models: what is inside, without the network."""

from pathlib import Path
from typing import Any

import click

from vaedensity.cli.common import answer, guarded, json_option, mib


def describe_archive(path: Path) -> dict[str, Any]:
    """The record and index of an archive as a record; decodes nothing and does not import torch."""
    from vaedensity.coding.block import LOST, MODEL_CODERS
    from vaedensity.coding.reader import Archive
    from vaedensity.data.restore import count_items
    from vaedensity.errors import DamagedArchive

    with Archive(path) as archive:
        record, blocks = archive.record, archive.blocks
        each = archive.digests if archive.version >= 5 else [None] * len(archive.arrays)
        try:
            return {
                "archive": str(path),
                "version": archive.version,
                "bytes": path.stat().st_size,
                "arrays": [
                    {"name": a.name, "dtype": a.dtype.str, "shape": list(a.shape), "sha256": d.hex() if d else None}
                    for a, d in zip(archive.arrays, each)
                    if a is not archive.model_array
                ],
                "restores": [
                    {"kind": str(n["kind"]), "name": str(n["name"]), "files": files_of(n)}
                    for n in record["note"]["collections"]
                ],
                "model": None if archive.model is None else {key: archive.model[key] for key in ("sha256", "name")},
                "model_inside": archive.model_array is not None,
                "particles": archive.particles,
                "blocks": len(blocks),
                "model_blocks": sum(b.coder in MODEL_CODERS for b in blocks),
                "lost_blocks": sum(b.coder == LOST for b in blocks),
                "items": count_items(record["note"]["collections"], {a.name: a.rows for a in archive.contents}),
                "sha256": record.get("sha256"),
                "written_by": record["by"],
            }
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DamagedArchive(f"{path}: the directory makes no sense ({error})") from error


def files_of(note: dict[str, Any]) -> list[str] | None:
    """Names of the files of a folder, None of what is no folder."""
    if note["kind"] == "tree":
        return [str(name) + ("/" if kind == "d" else "") for name, kind in zip(note["entries"], note["types"])]
    return [*map(str, note["files"])] if "files" in note else None


def is_archive(path: Path) -> bool:
    from vaedensity.coding.container import MAGIC

    with open(path, "rb") as f:
        return f.read(len(MAGIC)) == MAGIC


def archive_lines(r: dict[str, Any], files: bool) -> list[str]:
    model = f"model {r['model']['name']} (sha256 {r['model']['sha256'][:16]}...)" if r["model"] else "no model needed"
    model += ", which is inside" if r["model_inside"] else ""
    model += f", {r['particles']} particles" if r["particles"] > 1 else ""
    model += f", {r['lost_blocks']} of them lost" if r["lost_blocks"] else ""
    lines = [f"{r['archive']}: {mib(r['bytes'])}, {r['items']} items in {r['blocks']} blocks, {model}"]
    for a in r["arrays"]:
        lines.append(f"  {a['name']}  {a['dtype']}  {'x'.join(map(str, a['shape'])) or 'scalar'}")
    for entry in r["restores"]:
        lines.append(f"  restores {entry['kind']} {entry['name']}")
        lines += [f"    {name}" for name in entry["files"] or []] if files else []
    return lines


def count_multiplications(path: Path, config: dict[str, Any]) -> int:
    """Needs the network, and so torch."""
    from vaedensity.errors import ModelError
    from vaedensity.model.cost import multiplications
    from vaedensity.model.kinds import config_from_json, outline

    try:
        network = config_from_json(config)
        if (weights := sum(p.numel() for p in outline(network).parameters())) > path.stat().st_size:
            raise ValueError(f"{weights} weights, more than the file holds")
        return multiplications(network)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: its configuration is not usable ({error}); fit again") from error


@click.command("list")
@click.argument("archive", type=click.Path(path_type=Path))
@json_option
@guarded
def list_command(archive: Path, as_json: bool) -> None:
    """What is inside ARCHIVE."""
    r = describe_archive(archive)
    answer(r, as_json, archive_lines(r, files=True))


@click.command("info")
@click.argument("target")
@click.option("--cost", "multiply", is_flag=True, help="Count a model's multiplications for one item, too.")
@json_option
@guarded
def info_command(target: str, multiply: bool, as_json: bool) -> None:
    """Facts about a MODEL (file or released name) or an ARCHIVE."""
    path = Path(target)
    if path.is_file() and is_archive(path):
        r = describe_archive(path)
        answer({"type": "archive", **r}, as_json, archive_lines(r, files=False))
        return
    from vaedensity.errors import ModelError
    from vaedensity.model.released import record_of, resolve
    from vaedensity.plain.model_file import read_model

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
    from vaedensity.plain.model_file import read_model

    rows = []
    for name, path in released().items():
        record = record_of(path)
        config, card = record["config"], record["card"]
        series = config.get("kind") == "sequence"
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
