"""What a user names on the command line, as arrays with restore metadata on how to put them back."""

from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from vaedensity.data.atomic import OwnFiles
from vaedensity.data.disk_array import FileArray


@dataclass(frozen=True)
class Collection:
    """One DATA or INPUT argument.

    ``arrays``: name -> array as found. ``meta``: JSON that says how to restore it: ``kind`` is
    "npy", "npz", "folder" (of images), "file", "files" (a folder of files of any kind, as bytes) or
    "tree" (a folder with whatever is in it), ``name`` the file or folder to make. ``item_names``: for
    reports, one per item of the only array, or None; of a tree, where there is nothing else in it.
    ``disk_bytes``: of the files that were read, None where there are none. ``room``: of arrays that hold the pixels of
    image files, the bytes that the files would take in an archive; ``retake`` gives the collection with the files of
    some of these arrays as bytes. ``remark``: what the user should know of how it was read; ``skipped``: files of a
    folder that are no images.
    """

    source: str
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]
    item_names: list[str] | None = None
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
    """Where torchvision's data sets lie and whether they may be downloaded; which array of several is meant;
    ``as_bytes``: whether a folder is read as the bytes of its files, for a sequence model, and not as images; None: where
    it holds no image. ``strict``: whether files that are no images are an error. ``own_files``: what this run writes, which
    is not read."""

    data_root: str = "data"
    download: bool = False
    usual_names: tuple[str, ...] = field(default=("x_train", "x_test", "x", "images", "data", "arr_0"))
    as_bytes: bool | None = False
    strict: bool = False
    own_files: OwnFiles = field(default_factory=OwnFiles)
