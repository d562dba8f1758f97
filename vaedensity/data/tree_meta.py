"""What restore metadata of kind `tree` must be like (docs/format.md), checked without Pillow."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

from vaedensity.data.tree_names import is_text, shown
from vaedensity.errors import DamagedArchive, first_line

FOLDER, FILE, IMAGE, LINK = "dfil"
MOST = 1 << 63
MOST_TIME = MOST * 10**9  # nanoseconds
LONGEST_NAME = 1 << 15  # characters of a path
MOST_RIGHTS = 4095
SUFFIXES = (".png", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
WITH_EXTRAS = (".png", ".webp", ".tif", ".tiff")
MODES = ("L", "RGB", "1")

Kind = TypeVar("Kind")
WORDS = {type(None): "nothing", bool: "a truth value", int: "a number", float: "a number", str: "a text"}
WORDS |= {list: "a list", dict: "an object"}


class Described(Protocol):
    """An array, or what an archive says of one."""

    @property
    def dtype(self) -> Any: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def check_tree_meta(meta: dict[str, Any]) -> None:
    """Raise DamagedArchive unless restore metadata of kind `tree` makes sense, whatever is in its arrays.

    ``meta["arrays"]``, where there is one, must name what ``bytes`` and ``images`` name.
    """
    with _as_damage("the archive's restore metadata of a folder makes no sense"):
        _check_fields(meta)


def check_tree(meta: dict[str, Any], arrays: Mapping[str, Described]) -> None:
    """Raise DamagedArchive unless ``meta`` makes sense and can be restored from arrays of these types and shapes.

    ``arrays``: by stored name, others may be among them.
    """
    check_tree_meta(meta)
    with _as_damage("the archive's list of a folder does not fit its arrays"):
        _check_arrays(meta, arrays)


@contextmanager
def _as_damage(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DamagedArchive(f"{what} ({first_line(error)[:200]})") from error


class Member(NamedTuple):
    """A file of a tree: its place among the entries, its name, and where its content is.

    ``size``: how many bytes of the pool are its own: its content, or of an image its metadata. ``group`` and ``item``:
    where an image's pixels are; None and 0 for other files.
    """

    place: int
    name: str
    size: int
    group: int | None
    item: int


def members(meta: dict[str, Any]) -> Iterator[Member]:
    """The files and images of restore metadata that makes sense, in the order of its entries."""
    sizes, extras, groups = iter(meta["sizes"]), iter(image_extras(meta)), iter(image_groups(meta))
    used = [0] * len(meta["images"])
    for place, (name, kind) in enumerate(zip(meta["entries"], meta["types"])):
        if kind == FILE:
            yield Member(place, name, next(sizes), None, 0)
        elif kind == IMAGE:
            group = next(groups)
            yield Member(place, name, next(extras), group, used[group])
            used[group] += 1


def image_groups(meta: dict[str, Any]) -> list[int]:
    """The group of each image of restore metadata that makes sense."""
    return meta.get("groups") or [0] * meta["types"].count(IMAGE)


def image_extras(meta: dict[str, Any]) -> list[int]:
    """The bytes of metadata of each image of restore metadata that makes sense."""
    return meta.get("extras") or [0] * meta["types"].count(IMAGE)


def entry_times(meta: dict[str, Any]) -> Iterator[int]:
    """Nanoseconds since 1970: the folder's own, then one for each entry; nothing where no ``times`` are kept."""
    time = 0
    for step in meta.get("times", ()):
        time += step
        yield time


def suffix_of(name: str) -> str:
    """The suffix of a file's name in lower case, as :class:`pathlib.PurePosixPath` has it.

    >>> suffix_of("a/b.tar.PNG")
    '.png'
    """
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return (dot + suffix).lower() if stem.strip(".") and suffix else ""


def renamed(meta: dict[str, Any], stored: Mapping[str, str]) -> dict[str, Any]:
    """``meta`` with its arrays under other names: original name -> name in the archive."""
    images = [group | {"array": stored[group["array"]]} for group in meta["images"]]
    return meta | {"bytes": [stored[name] for name in meta["bytes"]], "images": images}


def _check_fields(meta: dict[str, Any]) -> None:
    entries, types, links = field(meta, "entries", list), field(meta, "types", str), field(meta, "links", list)
    if len(entries) != len(types):
        raise ValueError("not one type for each entry")
    if not set(types) <= {FOLDER, FILE, IMAGE, LINK}:
        raise ValueError("an entry of no known type")
    _check_paths(entries, types)
    images = types.count(IMAGE)
    if len(links) != types.count(LINK):
        raise ValueError("not one target for each link")
    if not all(isinstance(link, str) and link and is_text(link) for link in links):
        raise ValueError("a link to what can be no name")
    _require_numbers(field(meta, "sizes", list), types.count(FILE), 0, MOST, "size")
    _check_groups(meta, images)
    if "extras" in meta:
        _require_numbers(meta["extras"], images, 0, MOST, "number of bytes of metadata")
        suffixes = (suffix_of(name) for name, kind in zip(entries, types) if kind == IMAGE)
        if any(size and suffix not in WITH_EXTRAS for size, suffix in zip(meta["extras"], suffixes)):
            raise ValueError("metadata of an image that can have none")
    if "rights" in meta:
        _require_numbers(meta["rights"], 1 + len(entries), 0, MOST_RIGHTS + 1, "permission")
    if "times" in meta:
        _require_numbers(meta["times"], 1 + len(entries), -2 * MOST_TIME, 2 * MOST_TIME, "time")
        if any(not -MOST_TIME <= time < MOST_TIME for time in entry_times(meta)):
            raise ValueError("a time out of reach")
    _check_names_of_arrays(meta)


def _check_paths(entries: list[Any], types: str) -> None:
    """Every path plain, apart from the others, and in a folder that was there before it."""
    seen: set[str] = set()
    folders = {""}
    for name, kind in zip(entries, types):
        if not isinstance(name, str):
            raise ValueError("a name that is no text")
        parent, slash, last = name.rpartition("/")
        if last in ("", ".", "..") or not is_text(last) or (slash and not parent):
            raise ValueError(f"the name {_short(name)}, which could leave the folder or can name no file")
        if len(name) > LONGEST_NAME:
            raise ValueError(f"the name {_short(name)}, of {len(name)} characters, expected at most {LONGEST_NAME}")
        if parent not in folders or name in seen:
            raise ValueError(f"the name {_short(name)}, which is there twice or lies in no folder")
        seen.add(name)
        if kind == FOLDER:
            folders.add(name)
        elif kind == IMAGE and suffix_of(name) not in SUFFIXES:
            raise ValueError(f"the name {_short(name)} of an image, of no known format")


def _check_groups(meta: dict[str, Any], images: int) -> None:
    groups = field(meta, "images", list)
    for group in groups:
        if not isinstance(group, dict):
            raise ValueError(f"a group of images is {said(group)}, expected an object")
        array, mode = group.get("array"), group.get("mode")
        if not isinstance(array, str) or mode not in MODES:
            raise ValueError(
                f"a group of images has {said(array)} as array and {said(mode)} as mode, expected the name of an array "
                f"and one of {', '.join(MODES)}"
            )
    if "groups" in meta:
        _require_numbers(meta["groups"], images, 0, len(groups), "group")
    elif len(groups) != min(images, 1):
        raise ValueError("images without a group")
    modes = [group["mode"] for group in groups]
    names = (name for name, kind in zip(meta["entries"], meta["types"]) if kind == IMAGE)
    if any(modes[k] != "RGB" and suffix_of(name) == ".webp" for name, k in zip(names, image_groups(meta))):
        raise ValueError("a .webp image that is not RGB")


def _check_names_of_arrays(meta: dict[str, Any]) -> None:
    for name in field(meta, "bytes", list):
        if not isinstance(name, str):
            raise ValueError(f"bytes: found {said(name)} as the name of an array, expected a text")
    used = [*meta["bytes"], *(group["array"] for group in meta["images"])]
    if len(set(used)) != len(used):
        raise ValueError("an array is used twice")
    if "arrays" in meta and set(used) != set(field(meta, "arrays", dict)):
        raise ValueError("the arrays are not those that are described")


def _check_arrays(meta: dict[str, Any], arrays: Mapping[str, Described]) -> None:
    for name in (*meta["bytes"], *(group["array"] for group in meta["images"])):
        if name not in arrays:
            raise ValueError(f"array {said(name)} is not there")
    pool = [arrays[name] for name in meta["bytes"]]
    if any(_is_not_bytes(array) or not array.shape for array in pool):
        raise ValueError("files in an array of other than bytes")
    found, expected = sum(math.prod(array.shape) for array in pool), sum(one.size for one in members(meta))
    if found != expected:
        raise ValueError(f"{found} bytes, expected {expected}")
    counts = [0] * len(meta["images"])
    for k in image_groups(meta):
        counts[k] += 1
    for group, count in zip(meta["images"], counts):
        array, mode = arrays[group["array"]], group["mode"]
        channels = (3,) if mode == "RGB" else ()
        if _is_not_bytes(array) or len(array.shape) < 3 or tuple(array.shape[3:]) != channels or 0 in array.shape:
            raise ValueError(f"images of mode {mode} in an array {array.dtype}{list(array.shape)}")
        if array.shape[0] != count:
            raise ValueError(f"{array.shape[0]} images, expected {count}")


def _is_not_bytes(array: Described) -> bool:
    return bool(getattr(array.dtype, "str", array.dtype) != "|u1")


def _require_numbers(values: Any, count: int, low: int, high: int, what: str) -> None:
    """Raise ValueError unless ``values`` are ``count`` whole numbers from ``low`` on and below ``high``."""
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"not one {what} for each")
    if any(type(n) is not int for n in values) or (values and not low <= min(values) <= max(values) < high):
        raise ValueError(f"a {what} that is no whole number or out of reach")


def _short(name: str) -> str:
    return shown(name if len(name) <= 80 else name[:77] + "...")


def field(meta: Mapping[str, Any], name: str, kind: type[Kind]) -> Kind:
    """``meta[name]``. Raises ValueError, which says what is there, where it is none of ``kind``."""
    value = meta.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name}: found {WORDS[type(value)]}, expected {WORDS[kind]}")
    return value


def said(value: Any) -> str:
    """``value`` for a message: a text itself, of anything else only what kind it is."""
    if not isinstance(value, str):
        return WORDS[type(value)]
    return ascii(value if len(value) <= 60 else value[:57] + "...")
