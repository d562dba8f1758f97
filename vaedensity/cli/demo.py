"""vaedensity demo: the whole story on the embedded digits."""

import tempfile
from pathlib import Path

import click

from vaedensity.cli.bench import bench_record
from vaedensity.cli.common import answer, guarded, json_option, say, silence_libraries, terminal_width
from vaedensity.cli.fit import fit_record
from vaedensity.cli.progress import FitBar
from vaedensity.cli.score import score_record

CODECS = ["zlib", "xz", "png", "webp"]  # that every installation has


@click.command("demo")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=75.0, show_default=True, help="Time to train.")
@json_option
@guarded
def demo_command(seconds: float, as_json: bool) -> None:
    """Fit, score, compress and decompress the digits that come with the package, and compare."""
    silence_libraries()
    from vaedensity.api.bench import bench
    from vaedensity.api.fit import fit_model
    from vaedensity.api.fit_request import FitRequest
    from vaedensity.api.model_items import ScoreRequest, load_model
    from vaedensity.api.score import score_array
    from vaedensity.data.collection import LoadOptions
    from vaedensity.data.named import load_named
    from vaedensity.density.importance import ImportanceSampling
    from vaedensity.report.tables import render

    train, test = (load_named(f"digits:{split}", LoadOptions()) for split in ("train", "test"))
    training, array = train.arrays["digits-train"], test.arrays["digits-test"]
    with tempfile.TemporaryDirectory(prefix="vaedensity-demo-") as folder:
        path = Path(folder, "digits.safetensors")
        with FitBar() as bar:
            request = FitRequest(preset="tiny", seconds=seconds)
            fitted = fit_model(training, train.source, path, request, observers=(bar,), say=say)
        say("scoring")
        model = load_model(path)
        scores = score_array(model, array, test.source, ScoreRequest(ImportanceSampling(256))).summary
        say("compressing and decompressing")
        result = bench(array, test.source, [str(path)], CODECS)  # restores the archive and compares
    rows: list[tuple[str, float, int | None]] = [
        (f"log-likelihood, K = {scores.samples}", scores.bits_per_dim, None),
        ("ELBO", scores.elbo_bits_per_dim, None),
    ]
    for row in sorted(result.codecs, key=lambda row: row.model is None):
        name = f"{row.codec}, {row.layout}" if row.model is None else "vaedensity archive, complete"
        rows.append((name, row.bits_per_dim, row.bytes))
    size = next(row.bytes for row in result.codecs if row.model is not None)
    verdict = f"restored bit for bit: {len(array)} digits, {array.nbytes} bytes from {size}"
    record = {
        "items": len(array),
        "fit": fit_record(fitted),
        "score": score_record(scores),
        "bench": bench_record(result),
        "table": [dict(zip(("name", "bits_per_dim", "bytes"), row)) for row in rows],
        "verdict": verdict,
    }
    cells = [[name, f"{rate:.3f}", str(taken or "")] for name, rate, taken in rows]
    title = f"{len(array)} held-out digits, 8x8, values 0 to 16"
    answer(record, as_json, [*render(title, ["", "bits/dim", "bytes"], cells, terminal_width()), verdict])
