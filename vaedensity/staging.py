"""Folders that are filled beside their place, and move there when they are whole."""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import c_int
from pathlib import Path, PurePath
from secrets import token_hex

from vaedensity.atomic import (
    ENDING,
    TOKEN,
    Claim,
    already_there,
    beside,
    exchange,
    rename_new,
    seize,
    sync_folder,
    system_call,
)
from vaedensity.errors import VaedensityError

PREFIX = ".vaedensity."
STAGE = re.compile(rf"{re.escape(PREFIX)}{TOKEN}{re.escape(ENDING)}")
NEW, OLD = "new", "old"  # of a stage: what is being made; what is out of its place for a moment
PLACE = ".place"  # after the name of something old: the file that says where it belongs
MANY = 16  # files whose flushes one by one take longer than one of all that the system has to write


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A hidden folder inside ``folder``, of this call alone, that is gone afterwards; so are the folders
    made on the way to it that then hold nothing. What killed runs left in ``folder`` is undone first."""
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    claim = Claim()
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            heal(folder)
            stage = claim.folder(folder, PREFIX)
            (stage / NEW).mkdir()
            for path in made:
                sync_folder(path.parent)
        except OSError as error:
            raise VaedensityError(f"cannot write to {folder}: {error.strerror or error}") from error
        yield stage / NEW
    finally:
        if claim.path is not None:
            _undo(claim.path)
        claim.let_go()
        _remove_empty(made)


def heal(folder: Path) -> None:
    """Undo what killed runs left in ``folder``: what they had moved out of its place goes back, unless something new is
    there, and the rest vanishes. What is in use stays, and whatever is not a staging folder of this user's."""
    for stage in beside(folder, STAGE):
        handle = seize(stage, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        if handle is None:
            continue
        try:
            mine = os.fstat(handle).st_uid == os.geteuid()  # else its notes could send files anywhere
            if mine and set(os.listdir(stage)) <= {NEW, OLD}:
                _undo(stage)
        except OSError:
            pass  # the next run's to try
        finally:
            os.close(handle)


def _undo(stage: Path) -> None:
    """Put back what ``stage`` has of old things, then remove it; where one cannot be put back, keep it."""
    with suppress(OSError):  # the next run's to try
        _put_back(stage)
        _remove_tree(stage)


def _put_back(stage: Path) -> None:
    """Each old thing to where its note says, unless something is there. Raises OSError."""
    for note in sorted((stage / OLD).glob(f"*{PLACE}")):
        old, place = note.with_suffix(""), PurePath(os.fsdecode(note.read_bytes()))
        if not os.path.lexists(old):
            continue
        if place.is_absolute() or ".." in place.parts:
            raise OSError(f"{note}: not a place in the folder")
        with suppress(FileExistsError):
            rename_new(old, stage.parent / place)
            sync_folder((stage.parent / place).parent)


def _remove_tree(stage: Path) -> None:
    """Remove a stage, and what in it cannot be written to: a replaced folder may hold such."""
    for path, folders, _ in os.walk(stage):
        for name in folders:
            inner = os.path.join(path, name)
            with suppress(OSError):
                mode = os.lstat(inner).st_mode
                if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
                    os.chmod(inner, 0o700)
    shutil.rmtree(stage, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    """Remove ``folders``, innermost first, up to the first that holds something."""
    with suppress(OSError):
        for path in folders:
            path.rmdir()


def move_into_place(staged: Path, target: Path, overwrite: bool = True) -> None:
    """Give what is finished, somewhere in a :func:`staging` folder, its place: in one step where the system has one,
    and else so that :func:`heal` puts the old one back after a kill in between.

    Raises UsageError where ``target`` exists and ``overwrite`` is not set, and VaedensityError where the system refuses;
    then ``target`` is what it was.
    """
    made = [p for p in target.parents if not p.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sync_tree(staged)
        with _movable(staged, target), _movable(target, staged):
            _place(staged, target, overwrite)
        for path in (target, *made):
            sync_folder(path.parent)
    except OSError as error:
        raise VaedensityError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        _remove_empty(made)


def _place(staged: Path, target: Path, overwrite: bool) -> None:
    while True:
        try:
            rename_new(staged, target)
            return
        except FileExistsError:
            if not overwrite:
                raise already_there(target) from None
        try:
            if not _is_folder(staged) and not _is_folder(target):
                os.replace(staged, target)
            elif not exchange(staged, target):
                _replace_in_two_steps(staged, target)
            return
        except FileNotFoundError:
            if os.path.lexists(target) or not os.path.lexists(staged):
                raise
            # It has vanished since: its name is free now.


@contextmanager
def _movable(path: Path, other: Path) -> Iterator[None]:
    """Let a folder that its owner may not write to, as restored ones can be, move: the system asks for that right.
    Afterwards it is as before, at ``path`` still or at ``other`` now."""
    try:
        before = os.lstat(path)
    except FileNotFoundError:
        before = None
    if before is None or not stat.S_ISDIR(before.st_mode) or before.st_mode & stat.S_IWUSR:
        yield
        return
    with suppress(PermissionError):  # somebody else's: the move itself will tell
        os.chmod(path, stat.S_IMODE(before.st_mode) | stat.S_IWUSR)
    try:
        yield
    finally:
        for place in (path, other):
            with suppress(OSError):
                if os.path.samestat(before, os.lstat(place)):
                    os.chmod(place, stat.S_IMODE(before.st_mode))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _replace_in_two_steps(staged: Path, target: Path) -> None:
    """The old one into the stage, with a note where it belongs, and then the new one to its place. Raises OSError."""
    stage = next(path for path in staged.parents if STAGE.fullmatch(path.name))
    old = stage / OLD / token_hex(8)
    old.parent.mkdir(exist_ok=True)
    with open(old.with_suffix(PLACE), "wb") as note:
        note.write(os.fsencode(os.path.relpath(target, stage.parent)))
        note.flush()
        os.fsync(note.fileno())
    sync_folder(old.parent)
    sync_folder(stage)
    try:
        os.rename(target, old)
        rename_new(staged, target)
    except BaseException:
        _put_back(stage)
        raise


def sync_tree(path: Path) -> None:
    """Have ``path``, a file or a folder with all in it, on the disk. Raises OSError where the disk cannot take it."""
    files, folders = [], []
    for folder, _, names in os.walk(path):
        folders.append(Path(folder))
        files += [Path(folder, name) for name in names]
    if len(files) > MANY and _sync_system(path):
        return
    for file in files if folders else [path]:
        if stat.S_ISREG(os.lstat(file).st_mode):  # links are in their folder
            _sync_file(file)
    for inner in reversed(folders):
        sync_folder(inner)


def _sync_file(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except PermissionError:
        return  # a file that not even its owner may read: the system writes it in its own time
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_system(path: Path) -> bool:
    """Flush the whole file system that ``path`` lies on; False where that cannot be had, or not be told to have worked."""
    function = system_call("syncfs", c_int)
    if function is None:
        return False
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return False
    try:
        return bool(function(handle) == 0)
    finally:
        os.close(handle)
