"""The command line. Commands live in modules of their own and import the rest when they run."""

import importlib
import time

import click

from vaedensity import __version__
from vaedensity.cli.common import STARTED

COMMANDS = {
    "fit": "fit",
    "score": "score",
    "sample": "sample",
    "reconstruct": "sample",
    "compress": "compress",
    "decompress": "decompress",
    "add": "compress",
    "test": "decompress",
    "repair": "decompress",
    "list": "inspect",
    "info": "inspect",
    "models": "inspect",
    "bench": "bench",
    "demo": "demo",
}


class LazyGroup(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"vaedensity.cli.{COMMANDS[cmd_name]}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vaedensity")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing on stderr but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Show libraries' warnings and full errors.")
@click.pass_context
def main(ctx: click.Context, quiet: bool, verbose: bool) -> None:
    """Fit variational autoencoders to a collection, score every item with a log-likelihood,
    and pack the collection into one exact archive.

    Exit status: 0 fine, 1 failure, 2 usage, 3 damaged archive, 4 model missing or not the archive's,
    5 unreliable scores (score --strict), 6 bounds too far apart (score --self-test), 130 interrupted.
    """
    ctx.meta[STARTED] = time.monotonic()
    ctx.obj = 0 if quiet else 2 if verbose else 1


if __name__ == "__main__":
    main()
