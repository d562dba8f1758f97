"""Files and folders made beside their places, and moved there when all are whole: all of them or none."""

import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from secrets import token_hex
from typing import NamedTuple

from vaedensity.data.atomic import ENDING, TOKEN, Claim, beside, seize
from vaedensity.data.long_paths import make_folders, missing, remove_empty, remove_tree, sync_tree
from vaedensity.data.system_calls import exchange, rename_new, sync_folder
from vaedensity.data.targets import keep_attributes, real_target
from vaedensity.errors import AlreadyThere, VaedensityError, writing

PREFIX = ".vaedensity."
STAGE = re.compile(rf"{re.escape(PREFIX)}{TOKEN}{re.escape(ENDING)}")
NEW, OLD = "new", "old"  # of a stage: what is being made; what is out of its place for a moment
FINISH, UNDO = "finish", "undo"  # of a stage: the journal of moves, which are to be finished or undone


class Move(NamedTuple):
    """``staged``, somewhere in a :func:`staging` folder, is to become ``target``.

    ``mode``: whether it takes over the permissions of what it replaces.
    """

    staged: Path
    target: Path
    mode: bool = True


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A hidden folder inside ``folder``, of this call alone, that is gone afterwards.

    So are the folders that were made on the way to it and then hold nothing. What killed runs left in ``folder`` is
    settled first. Raises VaedensityError where the system refuses.
    """
    made = missing(folder)
    claim = Claim()
    try:
        with writing(f"to {folder}"):
            make_folders(folder)
            heal(folder)
            stage = claim.folder(folder, PREFIX)
            (stage / NEW).mkdir()
            for path in made:
                sync_folder(path.parent)
        yield stage / NEW
    finally:
        if claim.path is not None:
            _settle(claim.path)
        claim.let_go()
        remove_empty(made)


def heal(folder: Path) -> None:
    """Settle what killed runs left in ``folder``.

    Moves that had begun are finished, or undone where they were being undone; the rest is removed. What is in use
    stays, and so does all that is no staging folder of this user.
    """
    for stage in beside(folder, STAGE):
        handle = seize(stage, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        if handle is None:
            continue
        try:
            mine = os.fstat(handle).st_uid == os.geteuid()  # else its journal could send files anywhere
            if mine and set(os.listdir(stage)) <= {NEW, OLD, FINISH, UNDO, FINISH + ENDING}:
                _settle(stage)
        except OSError:
            pass  # the next run's to try
        finally:
            os.close(handle)


def _settle(stage: Path) -> None:
    """Finish or undo the moves of ``stage``, then remove it; where that cannot be done, keep it for the next run."""
    with suppress(OSError, VaedensityError, ValueError, TypeError):  # the next run's to try
        if (stage / UNDO).exists():
            for entry in reversed(_read_journal(stage / UNDO)):
                entry.undo(stage)
        elif (stage / FINISH).exists():
            for entry in _read_journal(stage / FINISH):
                entry.finish(stage)
        remove_tree(stage)


def move_into_place(moves: Sequence[Move], overwrite: bool = True) -> None:
    """Move what is finished to its place: all of it or, where the system refuses, nothing.

    A target that is a link stays one, and what it leads to is replaced. Where a run is killed in between, :func:`heal`
    finishes its moves; where they failed, they are undone when :func:`staging` ends.

    Raises
    ------
    UsageError
        If a target exists and ``overwrite`` is not set.
    VaedensityError
        If the system refuses.
    """
    made: list[Path] = []
    try:
        with ExitStack() as links:
            places, counts = [], []
            for move in moves:
                with writing(move.target):
                    counts.append(len(new := missing(move.target.parent)))
                    made = [*new, *made]
                    make_folders(move.target.parent)
                    place = _through_links(move, links)
                    if overwrite:
                        keep_attributes(place.target, place.staged, mode=place.mode)
                    sync_tree(place.staged)
                    places.append(place)
            if len(places) == 1:
                with writing(places[0].target):
                    if _place(places[0].staged, places[0].target, overwrite):
                        _sync(places[0].target, made)
                        return
            _move_all(places, counts, overwrite, made)
    finally:
        remove_empty(made)


def _sync(target: Path, made: list[Path]) -> None:
    for path in (target, *made):
        sync_folder(path.parent)


def _through_links(move: Move, links: ExitStack) -> Move:
    """``move`` to where its target's links lead, staged beside that. Raises OSError."""
    real = real_target(move.target)
    if real == move.target:
        return move
    moved = links.enter_context(staging(real.parent)) / token_hex(8)
    try:
        with _movable(move.staged, moved):
            os.rename(move.staged, moved)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if _is_folder(move.staged):
            raise VaedensityError(
                f"cannot write {move.target}: it is a link to a folder on another disk; decompress into {real.parent}"
            ) from error
        shutil.copy2(move.staged, moved, follow_symlinks=False)
        sync_tree(moved)
    return Move(moved, real, move.mode)


def _place(staged: Path, target: Path, overwrite: bool, old: Path | None = None) -> bool:
    """Give ``staged`` the name ``target``; what had it then lies at ``staged`` or ``old``. Without ``old`` this is one
    step, or False where the system has none for it. Raises AlreadyThere, OSError."""
    with _movable(staged, target), _movable(target, staged, *([old] if old else [])):
        while True:
            try:
                rename_new(staged, target)
                return True
            except FileExistsError:
                if not overwrite:
                    raise AlreadyThere(target) from None
            try:
                if exchange(staged, target):
                    return True
                if old is not None:
                    os.rename(target, old.with_name(token_hex(8)) if os.path.lexists(old) else old)
                elif _is_folder(staged) or _is_folder(target):
                    return False
                else:
                    os.replace(staged, target)
                    return True
            except FileNotFoundError:
                if os.path.lexists(target) or not os.path.lexists(staged):
                    raise
                # It has vanished since: its name is free now.


@contextmanager
def _movable(path: Path, *others: Path) -> Iterator[None]:
    """Let a folder move that its owner may not write to, as restored ones can be: the system asks for that right.

    Afterwards its permissions are as before, at ``path`` still or at one of ``others`` now.
    """
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
        for place in (path, *others):
            with suppress(OSError):
                if os.path.samestat(before, os.lstat(place)):
                    os.chmod(place, stat.S_IMODE(before.st_mode))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


# The journal is written before the first of several moves. Whoever finds it finishes or undoes them.

Mark = list[int] | None
"""Shows that a name still stands for the same thing; None where there is nothing."""


def _mark(path: Path) -> Mark:
    try:
        state = os.lstat(path)
    except FileNotFoundError:
        return None
    return [state.st_ino] if stat.S_ISDIR(state.st_mode) else [state.st_ino, state.st_size, state.st_mtime_ns]


@dataclass(frozen=True)
class _Entry:
    """One move: of ``staged``, below the stage, to ``target``, below the folder that the stage is in.

    ``new`` and ``old`` are their marks before the move, ``made`` is how many folders were made for it.
    """

    number: int
    staged: str
    target: str
    new: Mark
    old: Mark
    made: int

    def __post_init__(self) -> None:
        for path in (PurePath(self.staged), PurePath(self.target)):
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{path}: not a place in the folder")

    def _paths(self, stage: Path) -> tuple[Path, Path, Path]:
        return stage / self.staged, stage.parent / self.target, stage / OLD / str(int(self.number))

    def do(self, stage: Path, overwrite: bool) -> None:
        staged, target, old = self._paths(stage)
        with writing(target):
            _place(staged, target, overwrite, old)

    def finish(self, stage: Path) -> None:
        """Do it unless it was done, or something new has come to its place. Raises OSError."""
        staged, target, old = self._paths(stage)
        if _mark(staged) == self.new and _mark(target) in (None, self.old):
            make_folders(target.parent)
            _place(staged, target, self.old is not None, old)
            sync_folder(target.parent)

    def undo(self, stage: Path) -> None:
        """Put back what was there, unless something new has come to its place. Raises OSError."""
        staged, target, old = self._paths(stage)
        exchanged = _mark(staged) not in (None, self.new)
        if _mark(target) == self.new:
            aside = old.with_name(old.name + NEW)
            with _movable(target, aside):
                rename_new(target, aside)
        back = staged if exchanged else old
        if os.path.lexists(back) and not os.path.lexists(target):
            with _movable(back, target):
                rename_new(back, target)
        sync_folder(target.parent)
        remove_empty(target.parents[: self.made])


def _move_all(places: list[Move], counts: list[int], overwrite: bool, made: list[Path]) -> None:
    """Raises AlreadyThere, VaedensityError; all is undone then, when their stages are settled."""
    if not overwrite and (there := next((p.target for p in places if os.path.lexists(p.target)), None)):
        raise AlreadyThere(there)
    journals: dict[Path, list[_Entry]] = {}
    for number, ((staged, target, _), count) in enumerate(zip(places, counts)):
        stage = next(path for path in staged.parents if STAGE.fullmatch(path.name))
        names = str(staged.relative_to(stage)), str(target.relative_to(stage.parent))
        journals.setdefault(stage, []).append(_Entry(number, *names, _mark(staged), _mark(target), count))
    try:
        for stage, entries in journals.items():
            with writing(stage.parent / entries[0].target):
                _write_journal(stage, entries)
        for stage, entries in journals.items():
            for entry in entries:
                entry.do(stage, overwrite)
        for place in places:
            with writing(place.target):
                _sync(place.target, made)
    except BaseException:
        for stage in journals:
            with suppress(OSError):
                os.replace(stage / FINISH, stage / UNDO)
        raise


def _write_journal(stage: Path, entries: list[_Entry]) -> None:
    (stage / OLD).mkdir()
    with open(stage / (FINISH + ENDING), "w", encoding="ascii") as f:
        json.dump([asdict(entry) for entry in entries], f)
        f.flush()
        os.fsync(f.fileno())
    os.replace(stage / (FINISH + ENDING), stage / FINISH)
    sync_folder(stage)


def _read_journal(path: Path) -> list[_Entry]:
    """Raises OSError, ValueError, TypeError."""
    return [_Entry(**entry) for entry in json.loads(path.read_text("ascii"))]
