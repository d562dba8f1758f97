"""What a user names as data, as arrays with restore metadata: how to make the same files of them again."""

from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from vaedensity.data.atomic import OwnFiles
from vaedensity.data.disk_array import FileArray


@dataclass(frozen=True)
class Collection:
    """The arrays of one thing that a user named, and how to make the same files of them again.

    Folders become one for an archive by :class:`~vaedensity.data.tree.Tree`, and for fit and score without ``meta``.

    Attributes
    ----------
    source
        What the user named it.
    arrays
        By name: numpy arrays, or arrays that are read from their files piece by piece.
    meta
        Restore metadata, JSON: ``kind`` is "npy", "npz", "file" (any, as its bytes) or "tree" (a folder with whatever
        is in it), ``name`` the file or folder to make; more for trees.
    item_names
        Of a folder of images their names, for reports, one for each item.
    files
        Of the bytes of a folder's files, in order, the name and length of each.
    disk_bytes
        Size of the files that were read, or None where there are none.
    room
        Of arrays that hold pixels of image files, the bytes that the files themselves would take in an archive.
    retake
        Gives the collection with the files of some of these arrays as bytes.
    remark
        What the user should know of how it was read.
    skipped
        Files of a folder that are no images.

    Examples
    --------
    >>> from vaedensity.data.load import load
    >>> load("digits:train").meta
    {'kind': 'npy', 'name': 'digits-train.npy'}
    """

    source: str
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any] = field(default_factory=dict)
    item_names: list[str] | None = None
    files: tuple[tuple[str, int], ...] = ()
    disk_bytes: int | None = None
    room: dict[str, int] = field(default_factory=dict)
    retake: "Callable[[Set[str]], Collection] | None" = None
    remark: str = ""
    skipped: tuple[str, ...] = ()

    def require_unchanged(self) -> None:
        """Raise SourceChanged where a file whose arrays are read piece by piece is not what it was at first."""
        for array in self.arrays.values():
            if isinstance(array, FileArray):
                array.require_unchanged()


@dataclass(frozen=True)
class LoadOptions:
    """How data are read.

    Attributes
    ----------
    data_root, download
        Where torchvision's data sets lie, and whether they may be downloaded.
    as_bytes
        Whether a folder is read as the bytes of its files, for a sequence model, and not as images; None: where it
        holds no image.
    strict
        Whether files of a folder that are no images are an error.
    own_files
        What this run writes, which is not read.
    """

    data_root: str = "data"
    download: bool = False
    as_bytes: bool | None = False
    strict: bool = False
    own_files: OwnFiles = field(default_factory=OwnFiles)
