"""A folder made again from restore metadata of kind `tree` and its arrays."""

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vaedensity.data.long_paths import LongPaths
from vaedensity.data.tree_contents import Image, Pieces, Ranges, contents
from vaedensity.data.tree_meta import FOLDER, LINK, check_tree, entry_times, suffix_of
from vaedensity.data.tree_names import WINDOWS, fits_system, shown, to_system
from vaedensity.errors import UsageError, VaedensityError

KEPT_RIGHTS = 0o777
# What a file system that cannot hold times or permissions raises.
NOT_HELD = (OSError, OverflowError, NotImplementedError)
CHOICES = ("inside", "any", "none")  # of links


def require_restorable(meta: dict[str, Any], links: str = "inside") -> None:
    """Raise UsageError where this system cannot restore a tree, or its links are not to be made.

    Needs no arrays: what is rejected here is so before they are decoded.

    Parameters
    ----------
    meta
        Restore metadata that makes sense.
    links
        "inside" rejects links that may lead out of the tree; "any" makes all, and "none" leaves links out.
    """
    require_names((meta["name"], *meta["entries"]))
    if links not in CHOICES:
        raise UsageError(f"links {links}: expected {', '.join(CHOICES)}")
    if links == "inside" and meta["links"] and (out := _leading_out(meta)):
        name, target = out
        raise UsageError(
            f"{shown(meta['name'])}: {shown(name)} is a link that may lead out of the folder, to {shown(target)}; "
            "pass links=any to make such links, links=none to leave links out"
        )


def _leading_out(meta: dict[str, Any]) -> tuple[str, str] | None:
    """(name, target) of a link that is absolute, or goes up from the tree or from what is not known to be a folder of
    it, as what lies beyond another link is not."""
    places, parents, children = {"": 0}, [0], {}
    for name, kind in zip(meta["entries"], meta["types"]):
        if kind == FOLDER:
            parent, _, last = name.rpartition("/")
            places[name] = children[places[parent], last] = len(parents)
            parents.append(places[parent])
    targets = iter(meta["links"])
    for name, kind in zip(meta["entries"], meta["types"]):
        if kind != LINK:
            continue
        target = next(targets)
        at: int | None = places[name.rpartition("/")[0]]
        for step in target.split("/"):
            if step in ("", "."):
                continue
            if step != "..":
                at = None if at is None else children.get((at, step))
            elif at:
                at = parents[at]
            else:  # the tree itself is 0, what is not known None
                return name, target
        if target.startswith("/") or not fits_system(target):
            return name, target
    return None


def require_names(names: Iterable[str]) -> None:
    """Raise UsageError where this system cannot hold one of the ``names``."""
    for name in names:
        if not fits_system(name):
            raise UsageError(
                f"the archive holds the name {shown(name)}, which this system cannot hold; use another one"
            )


def write_tree(
    meta: dict[str, Any],
    arrays: Mapping[str, Any],
    path: Path,
    links: str = "inside",
    lost: Mapping[str, Ranges] | None = None,
    remarks: list[str] | None = None,
) -> list[str]:
    """Make the folder ``path``, which must not exist, with everything in it; returns the names of files left out.

    Links are made last, and nothing is written through one. The bits setuid, setgid and sticky are always dropped.

    Parameters
    ----------
    meta
        Restore metadata of kind `tree`.
    arrays
        By stored name: numpy arrays or what has ``dtype``, ``shape``, ``len`` and slices of the first axis; they are
        read one image and a few MiB of bytes at a time.
    links
        As of :func:`require_restorable`.
    lost
        By stored name, ranges (first, last + 1) of items that are not to be read; files that need them are left out.
    remarks
        Gets a line where the file system cannot hold permissions or times of change.

    Raises
    ------
    DamagedArchive
        If ``meta`` and ``arrays`` do not fit.
    UsageError
        For links and names that are rejected, before anything is written.
    VaedensityError
        If the disk refuses.
    """
    check_tree(meta, arrays)
    require_restorable(meta, links)
    root: Any = os.fspath(path) if WINDOWS else os.fsencode(path)
    entries = list(zip(meta["entries"], meta["types"]))
    left_out: list[str] = []
    name = ""
    try:
        os.mkdir(root, folder_mode(meta))
        with LongPaths(root) as paths:
            folder = _NewFolder(paths, meta)
            for name, kind in entries:
                if kind == FOLDER:
                    folder.make(name)
            for number, name, content in contents(meta, arrays, lost or {}):
                if content is None:
                    left_out.append(name)
                else:
                    folder.fill(name, content)
                    folder.finish(1 + number, name)
            targets = iter(meta["links"] if links != "none" else ())
            for number, (name, kind) in enumerate(entries, 1):
                if kind == LINK and (target := next(targets, None)):
                    folder.link(name, target)
                    folder.finish(number, name, is_link=True)
            for number, (name, kind) in reversed(list(enumerate([("", FOLDER), *entries]))):
                if kind == FOLDER:
                    folder.finish(number, name)
    except OSError as error:
        raise VaedensityError(f"cannot write {shown(name or path.name)}: {error.strerror or error}") from error
    if remarks is not None:
        remarks += folder.not_held()
    return left_out


def folder_mode(meta: dict[str, Any]) -> int:
    """Permissions of a new folder: closed to others until it has its own."""
    return 0o777 if meta.get("rights") is None else 0o700


class _NewFolder:
    """Makes what lies below a folder, by names of entries; the empty name is the folder itself."""

    def __init__(self, paths: LongPaths, meta: dict[str, Any]):
        self.paths, self.name, self.mode = paths, meta["name"], folder_mode(meta)
        self.rights, self.times = meta.get("rights"), list(entry_times(meta))
        self.other_times: list[str] = []  # names of entries whose times or permissions the file system does not hold
        self.other_rights: list[str] = []

    def make(self, name: str) -> None:
        path, where = self.paths.at(to_system(name))
        os.mkdir(path, self.mode, **where)

    def fill(self, name: str, content: Pieces | Image) -> None:
        """Make a file."""
        with open(to_system(name), "xb", opener=self.paths.opener) as f:
            if isinstance(content, Image):
                from vaedensity.data.image_files import image_bytes

                f.write(image_bytes(content.pixels(), content.mode, suffix_of(name), content.extras))
            else:
                for piece in content:
                    f.write(piece.data)

    def link(self, name: str, target: str) -> None:
        (path, where), points_to = self.paths.at(to_system(name)), to_system(target)
        os.symlink(points_to, path, WINDOWS and os.path.isdir(os.path.join(os.path.dirname(path), points_to)), **where)

    def finish(self, number: int, name: str, is_link: bool = False) -> None:
        """Give what is complete its time and its permissions, in this order: permissions may forbid to set times.

        They are number ``number`` in the restore metadata.
        """
        path, where = self.paths.at(to_system(name))
        if self.times:
            with suppress(*NOT_HELD):
                os.utime(path, ns=(self.times[number],) * 2, follow_symlinks=not is_link, **where)
        state = os.stat(path, follow_symlinks=not is_link, **where)
        if self.times and state.st_mtime_ns != self.times[number]:
            self.other_times.append(name)
        if self.rights and not is_link:
            mode = self.rights[number] & KEPT_RIGHTS
            if stat.S_IMODE(state.st_mode) == mode:
                return
            with suppress(*NOT_HELD):
                os.chmod(path, mode, **where)
            if stat.S_IMODE(os.stat(path, **where).st_mode) != mode:
                self.other_rights.append(name)

    def not_held(self) -> list[str]:
        """A line for what the file system does not hold as the archive has it."""
        kinds = (("times of change", self.other_times), ("permissions", self.other_rights))
        return [
            f"{shown(self.name)}: {what} of {len(names)} entries are others than in the archive, this file system "
            f"cannot hold them; the first is {shown(names[0]) or 'the folder itself'}"
            for what, names in kinds
            if names
        ]
