"""Reads a folder with whatever is in it: what lies where, and which images can come back pixel for pixel."""

import os
import stat
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from vaedensity.data.atomic import OwnFiles
from vaedensity.data.collection import Collection
from vaedensity.data.long_paths import LongPaths
from vaedensity.data.tree_meta import FILE, FOLDER, IMAGE, LINK, LONGEST_NAME, MOST_TIME, SUFFIXES, suffix_of
from vaedensity.data.tree_names import WINDOWS, from_system, link_from_system, shown, to_system
from vaedensity.errors import UsageError, changed

Key = tuple[str, int, int]  # mode, height, width
FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(slots=True)
class Entry:
    """One thing in a folder.

    ``name`` is relative, with ``/``; ``size``, ``rights`` (permission bits) and ``time`` (of change, in nanoseconds)
    are those of lstat; ``target`` is a link's; ``image`` is the group of an image file, ``extras`` its metadata.
    """

    name: str
    type: str
    size: int
    rights: int
    time: int
    target: str = ""
    image: Key | None = None
    extras: bytes = b""


@dataclass
class Tree:
    """What a folder holds, read once. The bytes of files that are no images are read when they are needed.

    ``entries`` is all that is in it, folders before their content; ``own`` is its own entry. ``groups`` has the image
    files that can come back with the same pixels and metadata: (mode, H, W) -> pixels (N,H,W) or (N,H,W,3) uint8, in
    the order of ``entries``; ``files`` has their entries. ``refused``, where it is a list, gets a line for everything
    that cannot be kept and is left out, instead of an error.
    """

    source: str
    groups: dict[Key, NDArray[np.uint8]]
    folder: str | bytes = field(repr=False)
    own: Entry = field(repr=False)
    entries: list[Entry] = field(repr=False)
    keep_times: bool = True
    files: dict[Key, list[Entry]] = field(default_factory=dict, repr=False)
    refused: list[str] | None = field(default=None, repr=False)

    def leave_out(self, entry: Entry, error: UsageError) -> None:
        """Go on without ``entry`` and say why in ``refused``, or raise ``error`` where there is no such list."""
        if self.refused is None:
            raise error
        self.refused.append(str(error))
        self.entries.remove(entry)

    def group_bytes(self, key: Key) -> int:
        """How many bytes the image files of a group have on disk."""
        return sum(entry.size for entry in self.files[key])

    def extras_bytes(self, key: Key) -> int:
        """How many bytes the metadata of a group has."""
        return sum(len(entry.extras) for entry in self.files[key])

    def some_bytes(self, key: Key, most: int) -> bytes:
        """At most ``most`` bytes of the image files of a group, of some of them where there are more.

        Raises UsageError.
        """
        parts = []
        with _opened(self.source, self.folder) as paths:
            for entry in self.files[key][:: -(-self.group_bytes(key) // most)]:
                parts.append(np.empty(entry.size, np.uint8))
                try:
                    _read_into(self.source, paths, entry, parts[-1])
                except UsageError:
                    if self.refused is None:
                        raise
                    parts.pop()  # it is left out when all are read
        return b"".join(part.tobytes() for part in parts)[:most]

    def array_name(self, key: Key) -> str:
        """The name of the array that holds a group's pixels."""
        mode, height, width = key
        return f"images {width}x{height} {mode}"

    def collection(self, as_pixels: Callable[[Key, NDArray[np.uint8]], bool]) -> Collection:
        """Everything in the folder, as arrays and restore metadata of kind `tree`.

        The groups for which ``as_pixels`` is true become arrays of pixels. All other files are read now, into the array
        ``bytes`` (n,) uint8, which is left out where it would be empty.

        Raises UsageError where a file cannot be read or has changed.
        """
        images = {key: array for key, array in self.groups.items() if as_pixels(key, array)}
        numbers = {key: number for number, key in enumerate(images)}
        pool = self._pool(images.keys())
        types = "".join(IMAGE if entry.image in images else entry.type for entry in self.entries)
        shown_as_pixels = [entry for entry, kind in zip(self.entries, types) if kind == IMAGE]
        arrays: dict[str, NDArray[Any]] = {"bytes": pool} if pool.size else {}
        arrays |= {self.array_name(key): array for key, array in images.items()}
        meta: dict[str, Any] = {
            "kind": "tree",
            "name": _name_of(self.folder),
            "entries": [entry.name for entry in self.entries],
            "types": types,
            "bytes": ["bytes"] if pool.size else [],
            "images": [{"array": self.array_name(key), "mode": key[0]} for key in images],
            "sizes": [entry.size for entry, kind in zip(self.entries, types) if kind == FILE],
            "links": [entry.target for entry in self.entries if entry.type == LINK],
        }
        if len(images) > 1:
            meta["groups"] = [numbers[entry.image] for entry in shown_as_pixels if entry.image]
        if any(entry.extras for entry in shown_as_pixels):
            meta["extras"] = [len(entry.extras) for entry in shown_as_pixels]
        if not WINDOWS:  # whose permissions would be others elsewhere
            meta["rights"] = [entry.rights for entry in (self.own, *self.entries)]
        if self.keep_times:
            times = [entry.time for entry in (self.own, *self.entries)]
            meta["times"] = [time - before for time, before in zip(times, [0, *times])]
        return Collection(self.source, arrays, meta, disk_bytes=sum(entry.size for entry in self.entries))

    def _pool(self, images: Set[Key]) -> NDArray[np.uint8]:
        """The bytes of files and the metadata of ``images``, in the order of entries: (n,)."""
        sizes = [
            len(entry.extras) if entry.image in images else entry.size * (entry.type == FILE) for entry in self.entries
        ]
        pool, at = np.empty(sum(sizes), np.uint8), 0
        with _opened(self.source, self.folder) as paths:
            for entry, size in zip(list(self.entries), sizes):
                part = pool[at : at + size]
                if entry.image in images:
                    part[:] = np.frombuffer(entry.extras, np.uint8)
                elif entry.type == FILE:
                    try:
                        _read_into(self.source, paths, entry, part)
                    except UsageError as error:
                        self.leave_out(entry, error)
                        continue
                at += size
        return pool[:at]


def scan(
    path: Path,
    *,
    all_bytes: bool = False,
    keep_times: bool = True,
    links: str = "store",
    own_files: OwnFiles = OwnFiles(),
    refused: list[str] | None = None,
) -> Tree:
    """Find out what a folder holds.

    Kept are names, links, permission bits and times of change; not owners, attributes, nor that files are one (hard
    links). Links are never followed, but ``path`` itself may be one.

    Parameters
    ----------
    path
        The folder.
    all_bytes
        Whether no file is taken for an image.
    keep_times
        Whether times of change are kept.
    links
        "store" keeps links, "refuse" makes them an error.
    own_files
        What this run writes, which is left out.
    refused
        A list that gets a line for everything that cannot be kept, which then stops nothing.

    Raises
    ------
    UsageError
        If something cannot be read, or is what no archive holds: a pipe, a socket, a device, a path too long.
    """
    folder = os.fspath(path) if WINDOWS else os.fsencode(path)
    source = shown(str(path))
    try:
        own = _entry("", os.stat(folder))
        if own.type != FOLDER:
            raise UsageError(f"{source}: no folder; expected one to read all that is in it")
    except OSError as error:
        raise UsageError(f"{source}: cannot be read ({error.strerror or error})") from error
    tree = Tree(source, {}, folder, own, [], keep_times, refused=refused)
    with _opened(source, folder) as paths:
        _walk(tree, paths, links, own_files)
        if not all_bytes:
            _find_images(tree, paths)
    return tree


def _opened(source: str, folder: str | bytes) -> LongPaths:
    try:
        return LongPaths(folder)
    except OSError as error:
        _refuse(source, "", error)


def _walk(tree: Tree, paths: LongPaths, links: str, own_files: OwnFiles) -> None:
    """Fill in ``entries``: folders before their content, sorted by name in each folder."""
    waiting = [""]
    while waiting:
        name = waiting.pop()
        try:
            inside = _look(tree, paths, name, links, own_files)
        except UsageError as error:
            if tree.refused is None or not name:
                raise
            tree.refused.append(str(error))
            continue
        prefix = f"{name}/" if name else ""
        waiting += sorted((prefix + part for part in inside), reverse=True)


def _look(tree: Tree, paths: LongPaths, name: str, links: str, own_files: OwnFiles) -> list[str]:
    """Add an entry to ``tree``, and return the names in it, if it is a folder. Raises UsageError."""
    source = tree.source
    if len(name) > LONGEST_NAME:
        raise UsageError(
            f"{source}: {shown(name[:60])}... is a path of {len(name)} characters, archives hold {LONGEST_NAME} at "
            "most; take what lies that deep out of the folder"
        )
    try:
        state = paths.state(to_system(name))
        entry = _entry(name, state)
        if entry.type == LINK:
            if links != "store":
                raise UsageError(f"{source}: {shown(name)} is a link; expected files and folders only")
            place, where = paths.at(to_system(name))
            entry.target = link_from_system(os.readlink(place, **where))
        if entry.type not in (FOLDER, FILE, LINK):
            what = f"{shown(name)} is {entry.type}, which no archive can hold"
            raise UsageError(f"{source}: {what}; take it out of the folder")
        parts = paths.list(to_system(name)) if entry.type == FOLDER else []
        inside = [from_system(part) for part in parts if not own_files.has(state, part)]
    except OSError as error:
        _refuse(source, name, error)
    except UnicodeEncodeError as error:
        raise UsageError(f"{source}: a name in {shown(name) or 'it'} is no Unicode; rename that") from error
    if name:
        tree.entries.append(entry)
    return inside


TYPES = {stat.S_IFDIR: FOLDER, stat.S_IFREG: FILE, stat.S_IFLNK: LINK, stat.S_IFIFO: "a pipe"}
TYPES |= {stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def _entry(name: str, found: os.stat_result) -> Entry:
    """The entry ``name``; where no archive can hold it, its ``type`` says in words what it is."""
    form = stat.S_IFMT(found.st_mode)
    kind = TYPES.get(form, "of no known type")
    rights = 0 if kind == LINK else stat.S_IMODE(found.st_mode)
    time = max(-MOST_TIME, min(found.st_mtime_ns, MOST_TIME - 1))  # beyond these no system has any
    return Entry(name, kind, found.st_size if kind == FILE else 0, rights, time)


def _find_images(tree: Tree, paths: LongPaths) -> None:
    """Fill in ``groups``, and which entries belong to them."""
    from vaedensity.data.image_files import LARGEST_FILE, read_image

    pixels: dict[Key, bytearray] = {}
    for entry in list(tree.entries):
        suffix = suffix_of(entry.name)
        if entry.type != FILE or suffix not in SUFFIXES or not 0 < entry.size <= LARGEST_FILE:
            continue
        data = np.empty(entry.size, np.uint8)
        try:
            _read_into(tree.source, paths, entry, data)
        except UsageError as error:
            tree.leave_out(entry, error)
            continue
        image = read_image(data.tobytes(), suffix)
        if image is None:
            continue
        entry.image, entry.extras = (image.mode, *image.pixels.shape[:2]), image.extras
        tree.files.setdefault(entry.image, []).append(entry)
        pixels.setdefault(entry.image, bytearray()).extend(image.pixels.tobytes())
    for key, buffer in pixels.items():
        mode, height, width = key
        shape = (-1, height, width, 3) if mode == "RGB" else (-1, height, width)
        tree.groups[key] = np.frombuffer(buffer, np.uint8).reshape(shape)


def _read_into(source: str, paths: LongPaths, entry: Entry, room: NDArray[np.uint8]) -> None:
    """Read a file into ``room``, which it has to fill, as it was when it was found. Raises UsageError."""
    try:
        with open(paths.open(to_system(entry.name), FLAGS), "rb", buffering=0) as f:
            at, known = 0, _entry(entry.name, os.fstat(f.fileno()))
            while known.type == FILE and at < len(room) and (n := f.readinto(room[at:].data)):
                at += n
            whole = at == len(room) and known.type == FILE and not f.read(1)
            if not whole or {known.time, _entry(entry.name, os.fstat(f.fileno())).time} != {entry.time}:
                raise changed(f"{source}: {shown(entry.name)}")
    except OSError as error:
        _refuse(source, entry.name, error)


def _refuse(source: str, name: str, error: OSError) -> NoReturn:
    raise UsageError(f"{source}: {shown(name) or 'the folder'} cannot be read ({error.strerror or error})") from error


def _name_of(folder: str | bytes) -> str:
    """The name of the folder as the user names it; of what has none, such as ``/``, "folder"."""
    return from_system(os.path.basename(os.path.abspath(folder))) or "folder"
