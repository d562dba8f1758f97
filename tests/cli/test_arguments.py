"""What commands say where one argument stands for another, and what a shell completes."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.shell_completion import BashComplete, ZshComplete
from conftest import invoke

from vaedensity.cli.main import COMMANDS, OTHER_NAMES, main
from vaedensity.errors import MODEL_MISMATCH, USAGE

Refused = Callable[..., str]


@pytest.fixture
def place(tmp_path: Path, model: Path, model_archive: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of each: d.npy, folder/, m.safetensors, a.vdz, metas.txt."""
    np.save(tmp_path / "d.npy", np.zeros((3, 8, 8), np.uint8))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.txt").write_text("x")
    (tmp_path / "metas.txt").write_text("metas")
    (tmp_path / "m.safetensors").write_bytes(model.read_bytes())
    (tmp_path / "a.vdz").write_bytes(model_archive.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vaedensity.model.released.checkpoint_folder", lambda: model.parent)
    return tmp_path


# Completion


def completions(shell: type, *line: str) -> tuple[list[str], list[str]]:
    """(words, kinds of what the shell itself completes) for the last argument of ``line``."""
    found = shell(main, {}, "vaedensity", "_VAEDENSITY_COMPLETE").get_completions(list(line[:-1]), line[-1])
    return [item.value for item in found if item.type == "plain"], [item.type for item in found if item.type != "plain"]


FILES = [
    ("compress", "fol"),
    ("compress", "d.npy", "-o", "a"),
    ("compress", "d.npy", "-m", "m.s"),
    ("fit", "fol"),
    ("fit", "d.npy", "--init", "m.s"),
    ("score", "m.s"),
    ("score", "m.safetensors", "d.n"),
    ("score", "m.safetensors", "d.npy", "--reference", "d.n"),
    ("score", "m.safetensors", "d.npy", "--background", "m.s"),
    ("sample", "m.s"),
    ("reconstruct", "m.safetensors", "d.n"),
    ("decompress", "a.v"),
    ("decompress", "a.vdz", "-m", "m.s"),
    ("test", "a.v"),
    ("test", "a.vdz", "a.v"),
    ("add", "a.v"),
    ("add", "a.vdz", "fol"),
    ("repair", "a.v"),
    ("list", "a.v"),
    ("info", "a.v"),
    ("bench", "d.n"),
    ("bench", "d.npy", "-m", "m.s"),
]


@pytest.mark.parametrize("shell", [BashComplete, ZshComplete])
@pytest.mark.parametrize("line", FILES, ids=" ".join)
def test_file_names_are_completed(shell: type, line: tuple[str, ...], place: Path) -> None:
    assert completions(shell, *line)[1] == ["file"]


@pytest.mark.parametrize("line", [("fit", "mni"), ("score", "x", "mni"), ("compress", "mni"), ("bench", "mni")])
def test_names_of_data_sets_are_completed(line: tuple[str, ...], place: Path) -> None:
    assert completions(ZshComplete, *line)[0] == ["mnist"]


@pytest.mark.parametrize("line", [("score", "dig"), ("info", "dig"), ("test", "-m", "dig"), ("fit", "--init", "dig")])
def test_names_of_released_models_are_completed(line: tuple[str, ...], place: Path) -> None:
    assert completions(ZshComplete, *line)[0] == ["digits-test-model"]


def test_bash_gets_names_and_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows its own file names only where it gets no words."""
    monkeypatch.setenv("_VAEDENSITY_COMPLETE", "bash_complete")
    (place / "has a blank").touch()
    words = completions(BashComplete, "score", "")[0]
    assert words == ["digits-test-model", "a.vdz", "d.npy", "folder/", "m.safetensors", "metas.txt"]
    assert completions(BashComplete, "fit", "d")[0] == ["digits", "d.npy"]
    assert completions(BashComplete, "fit", "folder/x") == ([], ["file"])


# One in the place of another

SWAPPED = [
    ("score", "d.npy", "m.safetensors"),
    ("score", "folder", "digits-test-model"),
    ("score", "metas.txt", "m.safetensors"),
    ("score", "digits:test", "m.safetensors"),
    ("score", "a.vdz", "m.safetensors"),
    ("reconstruct", "d.npy", "m.safetensors", "-o", "x.png"),
    ("add", "d.npy", "a.vdz"),
    ("add", "folder", "metas.txt", "a.vdz"),
    ("add", "gone", "a.vdz"),
]


@pytest.mark.parametrize("line", SWAPPED, ids=" ".join)
def test_arguments_in_the_wrong_order(line: tuple[str, ...], refused: Refused, place: Path) -> None:
    said = refused(USAGE, *line)
    assert line[1] in said and ("ARCHIVE" if line[0] == "add" else "MODEL") + " comes first" in said


NO_ARCHIVE = [("list",), ("test",), ("decompress",), ("repair", "-o", "new.vdz"), ("add", "d.npy")]


@pytest.mark.parametrize("line", NO_ARCHIVE, ids=lambda line: line[0])
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("folder", "a folder, expected an archive"),
        ("m.safetensors", "vaedensity info"),
        ("digits-test-model", "vaedensity info"),
    ],
)
def test_what_is_no_archive(line: tuple[str, ...], what: str, said: str, refused: Refused, place: Path) -> None:
    assert said in refused(USAGE, line[0], what, *line[1:])


NO_MODEL = [
    ("score", "M", "d.npy"),
    ("score", "M", "--self-test"),
    ("score", "m.safetensors", "d.npy", "--anomaly", "ratio", "--background", "M"),
    ("sample", "M", "-o", "x.png"),
    ("reconstruct", "M", "d.npy", "-o", "x.png"),
    ("compress", "d.npy", "-o", "x.vdz", "-m", "M"),
    ("decompress", "a.vdz", "-o", "new", "-m", "M"),
    ("test", "a.vdz", "-m", "M"),
    ("add", "a.vdz", "d.npy", "-m", "M"),
    ("bench", "d.npy", "-m", "M"),
    ("info", "M"),
]


@pytest.mark.parametrize("line", NO_MODEL, ids=" ".join)
@pytest.mark.parametrize(("what", "said"), [("folder", "a folder"), ("d.npy", "an array"), ("a.vdz", "an archive")])
def test_what_is_no_model(line: tuple[str, ...], what: str, said: str, refused: Refused, place: Path) -> None:
    if (line[0], what) == ("info", "a.vdz"):
        return  # of archives there is information, too
    assert f"{what}: {said}, expected a model" in refused(
        MODEL_MISMATCH, *(what if part == "M" else part for part in line)
    )


NO_STREAM = [
    ("fit", "-", "-o", "x.safetensors"),
    ("fit", "d.npy", "-o", "-", "--steps", "1"),
    ("score", "-", "d.npy"),
    ("score", "m.safetensors", "-"),
    ("score", "m.safetensors", "d.npy", "-o", "-"),
    ("sample", "m.safetensors", "-o", "-"),
    ("reconstruct", "m.safetensors", "d.npy", "-o", "-"),
    ("compress", "d.npy", "-o", "x.vdz", "-m", "-"),
    ("decompress", "a.vdz", "-o", "-"),
    ("add", "-", "d.npy"),
    ("repair", "-", "-o", "x.vdz"),
    ("repair", "a.vdz", "-o", "-"),
    ("list", "-"),
    ("info", "-"),
    ("bench", "-"),
    ("bench", "d.npy", "--plot", "-"),
]


@pytest.mark.parametrize("line", NO_STREAM, ids=" ".join)
def test_a_dash_where_it_makes_no_sense(line: tuple[str, ...], place: Path, unchanged: Callable[..., object]) -> None:
    with unchanged(place):  # type: ignore[attr-defined]
        result = invoke(*line)
    assert result.exit_code == USAGE and result.stdout == "" and "standard input and output are for" in result.stderr


def test_a_pipe_is_not_opened_to_see_what_it_is(place: Path) -> None:
    from vaedensity.cli.arguments import what_is

    os.mkfifo(place / "pipe")
    assert what_is("pipe") == "a file"
    found = [
        what_is(name) for name in ("folder", "m.safetensors", "a.vdz", "d.npy", "metas.txt", "digits", "no", "a\0")
    ]
    assert found == ["a folder", "a model", "an archive", "an array", "a file", "a data set", "nothing", "nothing"]


# Flags before and after the command, mistyped commands


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_the_flags_of_the_whole(command: str) -> None:
    shown = invoke(command, "--help").stdout
    assert shown.count("-q, --quiet") == shown.count("-v, --verbose") == 1


@pytest.mark.parametrize(
    ("line", "quiet"),
    [
        (("-q", "compress"), True),
        (("compress", "-q"), True),
        (("-v", "compress", "-q"), True),
        (("-q", "compress", "--verbose"), False),
        (("compress",), False),
    ],
)
def test_flags_before_and_after_the_command(line: tuple[str, ...], quiet: bool, place: Path) -> None:
    result = invoke(*line, "metas.txt", "-o", "x.vdz")
    assert result.exit_code == 0 and (result.stderr == "") == quiet


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("fti", "fit"), ("compres", "compress"), ("decompres", "decompress"), ("Score", "score"), *OTHER_NAMES.items()],
)
def test_a_mistyped_command_gets_a_suggestion(typed: str, meant: str) -> None:
    result = invoke(typed, "x")
    assert result.exit_code == USAGE and f"no such command {typed!r}: did you mean {meant!r}?" in result.stderr


def test_a_command_like_no_other_gets_the_list() -> None:
    result = invoke("frobnicate")
    assert result.exit_code == USAGE and f"expected one of {', '.join(COMMANDS)}" in result.stderr
