"""The command line. Commands live in modules of their own and import the rest when they run."""

import difflib
import importlib
import time
from collections.abc import Callable

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


# What others call the same thing.
OTHER_NAMES = {
    "train": "fit",
    "generate": "sample",
    "pack": "compress",
    "encode": "compress",
    "create": "compress",
    "append": "add",
    "unpack": "decompress",
    "extract": "decompress",
    "restore": "decompress",
    "decode": "decompress",
    "verify": "test",
    "check": "test",
    "ls": "list",
    "show": "info",
    "benchmark": "bench",
}


def say_options(command: Callable[..., None]) -> Callable[..., None]:
    """-q and -v, which the group and every command take: the last one given counts."""

    def choose(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
        def callback(context: click.Context, parameter: click.Parameter, given: bool) -> None:
            if given:
                context.obj = level

        return callback

    for flag, name, level, text in (
        ("-v", "--verbose", 2, "Show libraries' warnings and full errors."),
        ("-q", "--quiet", 0, "Say nothing on stderr but errors."),
    ):
        option = click.option(flag, name, is_flag=True, expose_value=False, callback=choose(level), help=text)
        command = option(command)
    return command


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
        if all(parameter.name != "quiet" for parameter in command.params):
            say_options(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            meant = OTHER_NAMES.get(name.lower()) or next(iter(difflib.get_close_matches(name.lower(), COMMANDS)), None)
            hint = f"did you mean {meant!r}?" if meant else f"expected one of {', '.join(COMMANDS)}"
            ctx.fail(f"no such command {name!r}: {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vaedensity")
@say_options
def main() -> None:
    """Fit variational autoencoders to a collection, score every item with a log-likelihood,
    and pack the collection into one exact archive.

    Exit status: 0 fine, 1 failure, 2 usage, 3 damaged archive, 4 model missing or not the archive's,
    5 unreliable scores (score --strict), 6 bounds too far apart (score --self-test), 130 interrupted.
    """
    click.get_current_context().meta[STARTED] = time.monotonic()


if __name__ == "__main__":
    main()
