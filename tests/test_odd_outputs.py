"""Whatever lies where an output is to go: it is written through or refused, and what it was is kept."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import PATIENT, cases

from vaedensity.data.atomic import atomic_file
from vaedensity.data.staging import Move, move_into_place, staging
from vaedensity.errors import VaedensityError

pytestmark = [PATIENT, pytest.mark.skipif(os.name == "nt", reason="permissions and links as of POSIX")]
OLD, NEW = b"what was there", b"what is new"
NAMES = ("out.vdz", "a:b", "-o", "line\nbreak", "caf\udce9", "back\\slash", "x" * 250, " ", "\u00fc")
WHAT = ("nothing", "file", "file of two names", "folder", "pipe", "socket", "dangling link", "link to itself")


def make(folder: Path, what: str, links: int, absolute: bool, mode: int, name: str) -> tuple[Path, Path]:
    """(what is to be written, where its links lead)."""
    place = folder / "disk" / f"at-{'y' * (len(name) > 200)}{name[:200]}"
    place.parent.mkdir()
    if what in ("file", "file of two names"):
        place.write_bytes(OLD)
        place.chmod(mode)
    if what == "file of two names":
        os.link(place, place.with_name("other"))
    elif what == "folder":
        place.mkdir()
        (place / "inside").write_bytes(OLD)
    elif what == "pipe":
        os.mkfifo(place)
    elif what == "socket":
        os.mknod(place, stat.S_IFSOCK | 0o600)
    elif what == "link to itself":
        place.symlink_to(place.name)
    target = place
    for k in range(max(links, what == "dangling link")):
        parent = folder / f"links-{k}"
        parent.mkdir()
        link = parent / name
        link.symlink_to(target if absolute else os.path.relpath(target, parent))
        target = link
    return target, place


def seen(folder: Path) -> dict[str, Any]:
    """Everything below, with permissions, targets and bytes; no recursion into what a test leaves."""
    found: dict[str, Any] = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            state = os.lstat(path)
            content: Any = None
            if stat.S_ISLNK(state.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(state.st_mode):
                content = Path(path).read_bytes()
            found[os.path.relpath(path, folder)] = (state.st_mode, content)
    return found


@cases(300)
@given(
    st.sampled_from(WHAT),
    st.integers(0, 3),
    st.booleans(),
    st.sampled_from([0o600, 0o640, 0o644, 0o400, 0o755, 0o666]),
    st.sampled_from(NAMES),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["atomic", "staged"]),
)
def test_what_lies_in_the_way(
    tmp_path_factory: pytest.TempPathFactory,
    what: str,
    links: int,
    absolute: bool,
    mode: int,
    name: str,
    overwrite: bool,
    failing: bool,
    how: str,
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    target, place = make(folder, what, links, absolute, mode, name)
    before = seen(folder)
    try:
        if how == "atomic":
            with atomic_file(target, overwrite) as f:
                f.write(NEW)
                if failing:
                    raise KeyError
        else:
            with staging(target.parent) as stage:
                (stage / "x").write_bytes(NEW)
                if failing:
                    raise KeyError
                move_into_place([Move(stage / "x", target)], overwrite)
    except (VaedensityError, KeyError) as error:
        assert "\n" not in str(error)
        assert seen(folder) == before
        assert failing or not overwrite or what not in ("nothing", "file", "dangling link") or mode == 0o400
        return
    after = seen(folder)
    key = os.path.relpath(place, folder)
    state, content = after.pop(key)
    assert stat.S_ISREG(state) and content == NEW
    if what.startswith("file"):
        assert overwrite and stat.S_IMODE(state) == mode
    before.pop(key, None)
    assert {k: v for k, v in after.items() if not k.startswith(f"{key}/")} == {
        k: v for k, v in before.items() if not k.startswith(f"{key}/")
    }
