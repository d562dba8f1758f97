"""vaedensity demo"""

import click

from vaedensity.cli.common import answer, guarded, json_option, say, silence_libraries, terminal_width
from vaedensity.cli.progress import FitBar


@click.command("demo")
@click.option("--seconds", type=click.FloatRange(5, 3600), default=75.0, show_default=True, help="Time to train.")
@json_option
@guarded
def demo_command(seconds: float, as_json: bool) -> None:
    """Fit, score, compress and decompress the digits that come with the package, and compare."""
    silence_libraries()
    from vaedensity.api.demo import run_demo
    from vaedensity.report.tables import render

    with FitBar() as bar:
        record = run_demo(seconds, observers=(bar,), say=say)
    rows = [
        [row["name"], f"{row['bits_per_dim']:.3f}", str(row["bytes"]) if row["bytes"] else ""]
        for row in record["table"]
    ]
    title = f"{record['items']} held-out digits, 8x8, values 0 to 16"
    table = render(title, ["", "bits/dim", "bytes"], rows, terminal_width())
    answer(record, as_json, [*table, record["verdict"]])
