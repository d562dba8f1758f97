"""A folder made again from a note of kind `tree` and its arrays."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vaedensity.data.pool import Ranges
from vaedensity.data.tree_contents import Image, Pieces, contents
from vaedensity.data.tree_links import require_links
from vaedensity.data.tree_names import WINDOWS, fits_system, shown, to_system
from vaedensity.data.tree_note import FOLDER, LINK, check_tree, entry_times, suffix_of
from vaedensity.errors import UsageError, VaedensityError

KEPT_RIGHTS = 0o777
NOT_HELD = (
    OSError,
    OverflowError,
    NotImplementedError,
)  # what a file system that cannot hold times or permissions raises


def require_restorable(note: dict[str, Any], links: str = "inside") -> None:
    """Raise UsageError where a note that makes sense cannot be restored on this system, or not with ``links``, one of
    "inside", "any" and "none". Needs no arrays: what is refused can be refused before they are decoded."""
    for name in (note["name"], *note["entries"]):
        if not fits_system(name):
            raise UsageError(
                f"the archive holds the name {shown(name)}, which this system cannot hold; use another one"
            )
    require_links(note, links)


def write_tree(
    note: dict[str, Any],
    arrays: Mapping[str, Any],
    path: Path,
    links: str = "inside",
    lost: Mapping[str, Ranges] | None = None,
) -> list[str]:
    """Make the folder ``path``, which must not be there, with everything in it; returns the names of files left out.

    ``arrays``: by stored name, numpy arrays or anything with ``dtype``, ``shape``, ``len`` and slices along the first
    axis, which are read one image and a few MiB of bytes at a time. ``links``: "inside" makes links and refuses those
    that may lead out of the tree, before anything is written; "any" makes all, "none" none. ``lost``: by stored name,
    the first and the last + 1 of items that are not to be read; files that need them are left out.

    Links are made last, and nothing is written through one. Permissions are kept but for the bits setuid, setgid and
    sticky, which are always dropped; they and the times of change are kept as far as the file system can hold them.

    Raises DamagedArchive where note and arrays do not fit, UsageError for links and names, VaedensityError where the
    disk refuses.
    """
    check_tree(note, arrays)
    require_restorable(note, links)
    folder = _NewFolder(path, note)
    entries = list(zip(note["entries"], note["types"]))
    left_out: list[str] = []
    name = ""
    try:
        folder.make("")
        for name, kind in entries:
            if kind == FOLDER:
                folder.make(name)
        for number, name, content in contents(note, arrays, lost or {}):
            if content is None:
                left_out.append(name)
            else:
                folder.fill(name, content)
                folder.finish(1 + number, name)
        targets = iter(note["links"] if links != "none" else ())
        for number, (name, kind) in enumerate(entries, 1):
            if kind == LINK and (target := next(targets, None)):
                folder.link(name, target)
                folder.finish(number, name, is_link=True)
        for number, (name, kind) in reversed(list(enumerate([("", FOLDER), *entries]))):
            if kind == FOLDER:
                folder.finish(number, name)
    except OSError as error:
        raise VaedensityError(f"cannot write {shown(name or path.name)}: {error.strerror or error}") from error
    return left_out


class _NewFolder:
    """What is made under ``path``, by names of entries; the empty name is the folder itself."""

    def __init__(self, path: Path, note: dict[str, Any]):
        self.root: Any = os.fspath(path) if WINDOWS else os.fsencode(path)
        self.rights, self.times = note.get("rights"), list(entry_times(note))

    def place(self, name: str) -> Any:
        return os.path.join(self.root, to_system(name)) if name else self.root

    def make(self, name: str) -> None:
        os.mkdir(self.place(name), 0o777 if self.rights is None else 0o700)  # closed until it has its own permissions

    def fill(self, name: str, content: Pieces | Image) -> None:
        """Make a file."""
        with open(self.place(name), "xb") as f:
            if isinstance(content, Image):
                from vaedensity.data.image_files import image_bytes

                f.write(image_bytes(content.pixels(), content.mode, suffix_of(name), content.extras))
            else:
                for piece in content:
                    f.write(piece.data)

    def link(self, name: str, target: str) -> None:
        place, points_to = self.place(name), to_system(target)
        os.symlink(points_to, place, os.path.isdir(os.path.join(os.path.dirname(place), points_to)))

    def finish(self, number: int, name: str, is_link: bool = False) -> None:
        """Give time and permissions number ``number`` of the note to what is complete; in this order, as permissions
        may forbid to set times."""
        place = self.place(name)
        if self.times:
            with suppress(*NOT_HELD):
                os.utime(place, ns=(self.times[number], self.times[number]), follow_symlinks=not is_link)
        if self.rights and not is_link:
            with suppress(*NOT_HELD):
                os.chmod(place, self.rights[number] & KEPT_RIGHTS)
