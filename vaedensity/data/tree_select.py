"""Some files of a tree: restore metadata of their own, and which items and bytes of the archive they need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from vaedensity.data.tree_meta import FILE, FOLDER, IMAGE, entry_times, image_extras, image_groups

POOL = "bytes"


@dataclass(frozen=True)
class Part:
    """``meta``: of kind `tree`, its pool in the array POOL. ``items``: by stored name, which images; ``ranges``: of the whole tree's
    pool, (first, end) one after the other."""

    meta: dict[str, Any]
    items: dict[str, list[int]]
    ranges: list[tuple[int, int]]


class TreeIndex:
    """Where in the arrays of a tree its files are. ``meta`` must have been checked. ``files``: places among the entries of all files
    and images."""

    def __init__(self, meta: dict[str, Any]):
        self.meta, self.entries, self.types = meta, meta["entries"], meta["types"]
        sizes, extras, groups = iter(meta["sizes"]), iter(image_extras(meta)), iter(image_groups(meta))
        self.in_pool = [next(sizes) if t == FILE else next(extras) if t == IMAGE else 0 for t in self.types]
        self.begins = [0, *accumulate(self.in_pool)]
        counts = [0] * len(meta["images"])
        self.image: dict[int, tuple[int, int]] = {}  # place -> group, item
        for place, kind in enumerate(self.types):
            if kind == IMAGE:
                group = next(groups)
                self.image[place] = group, counts[group]
                counts[group] += 1
        self.files = [place for place, kind in enumerate(self.types) if kind in (FILE, IMAGE)]

    def select(self, places: Sequence[int], names: Mapping[str, str]) -> Part:
        """The files at ``places`` and the folders that they are in; ``names``: stored -> original name of arrays."""
        parents = {
            parent for k in places for parent in accumulate(self.entries[k].split("/")[:-1], lambda a, b: f"{a}/{b}")
        }
        chosen = set(places)
        kept = [
            k for k, name in enumerate(self.entries) if k in chosen or (self.types[k] == FOLDER and name in parents)
        ]
        images = [k for k in kept if self.types[k] == IMAGE]
        groups = sorted({self.image[k][0] for k in images})
        meta: dict[str, Any] = {
            "kind": "tree",
            "name": self.meta["name"],
            "entries": [self.entries[k] for k in kept],
            "types": "".join(self.types[k] for k in kept),
            "sizes": [self.in_pool[k] for k in kept if self.types[k] == FILE],
            "extras": [self.in_pool[k] for k in images],
            "images": [self.meta["images"][g] for g in groups],
            "groups": [groups.index(self.image[k][0]) for k in images],
            "links": [],
        }
        if "rights" in self.meta:
            meta["rights"] = [self.meta["rights"][0], *(self.meta["rights"][1 + k] for k in kept)]
        if "times" in self.meta:
            times = list(entry_times(self.meta))
            wanted = [times[0], *(times[1 + k] for k in kept)]
            meta["times"] = [b - a for a, b in zip([0, *wanted], wanted)]
        ranges = [(self.begins[k], self.begins[k + 1]) for k in kept if self.in_pool[k]]
        meta["bytes"] = [POOL] if ranges else []
        items: dict[str, list[int]] = {group["array"]: [] for group in meta["images"]}
        for k in images:
            group, item = self.image[k]
            items[self.meta["images"][group]["array"]].append(item)
        meta["arrays"] = ({POOL: POOL} if ranges else {}) | {name: names[name] for name in items}
        return Part(meta, items, ranges)
