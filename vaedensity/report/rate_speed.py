"""Rate against speed, one point per codec and direction."""

from pathlib import Path
from typing import Any, BinaryIO


def plot_rate_against_speed(f: BinaryIO | Path, record: dict[str, Any]) -> None:
    """Draw the record of ``vaedensity bench`` as a PNG. Needs matplotlib; raises ImportError without it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for way, marker in (("compress", "o"), ("decompress", "x")):
        speeds = [row[f"{way}_mb_per_second"] for row in record["codecs"]]
        axes.scatter(speeds, [row["bits_per_dim"] for row in record["codecs"]], marker=marker, label=way, color="black")
    for row in record["codecs"]:
        left, right = sorted((row["compress_mb_per_second"], row["decompress_mb_per_second"]))
        axes.plot([left, right], [row["bits_per_dim"]] * 2, color="grey", linewidth=0.8, zorder=0)
        axes.annotate(
            row["codec"],
            (right, row["bits_per_dim"]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.set_xlabel("MB/s of raw data")
    axes.set_ylabel("bits per dimension, complete files")
    axes.set_title(f"{record['items']} items of {record['dims']} dimensions, {record['threads']} threads")
    axes.margins(x=0.25)
    axes.legend()
    figure.savefig(f, format="png")
