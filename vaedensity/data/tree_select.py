"""Some files of a tree: restore metadata of their own, and which items and bytes of the archive they need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from vaedensity.data.tree_meta import FOLDER, entry_times, members

POOL = "bytes"


@dataclass(frozen=True)
class Part:
    """Some files of a tree. ``meta``: of kind `tree`, with its pool in the array POOL.

    ``items``: by stored name of an array, which images are needed; ``ranges``: (first, end) of bytes of the whole
    tree's pool, in order.
    """

    meta: dict[str, Any]
    items: dict[str, list[int]]
    ranges: list[tuple[int, int]]


class TreeIndex:
    """Where in the arrays of a tree its files are, by restore metadata that was checked.

    ``files``: places among the ``entries`` of all files and images.
    """

    def __init__(self, meta: dict[str, Any]):
        self.meta, self.entries = meta, meta["entries"]
        self._members = {one.place: one for one in members(meta)}
        self.files = list(self._members)
        self._begins = dict(zip(self.files, accumulate((one.size for one in self._members.values()), initial=0)))

    def select(self, places: Sequence[int], names: Mapping[str, str]) -> Part:
        """The files at ``places`` and the folders that they lie in; ``names``: stored -> original name of arrays."""
        whole, chosen = self.meta, set(places)
        parents = {
            parent for k in places for parent in accumulate(self.entries[k].split("/")[:-1], lambda a, b: f"{a}/{b}")
        }
        entries = enumerate(zip(self.entries, whole["types"]))
        kept = [k for k, (name, kind) in entries if k in chosen or (kind == FOLDER and name in parents)]
        files = [self._members[k] for k in kept if k in self._members]
        groups = sorted({one.group for one in files if one.group is not None})
        meta: dict[str, Any] = {
            "kind": "tree",
            "name": whole["name"],
            "entries": [self.entries[k] for k in kept],
            "types": "".join(whole["types"][k] for k in kept),
            "sizes": [one.size for one in files if one.group is None],
            "extras": [one.size for one in files if one.group is not None],
            "images": [whole["images"][g] for g in groups],
            "groups": [groups.index(one.group) for one in files if one.group is not None],
            "links": [],
        }
        if "rights" in whole:
            meta["rights"] = [whole["rights"][0], *(whole["rights"][1 + k] for k in kept)]
        if "times" in whole:
            times = list(entry_times(whole))
            wanted = [times[0], *(times[1 + k] for k in kept)]
            meta["times"] = [b - a for a, b in zip([0, *wanted], wanted)]
        ranges = [(self._begins[one.place], self._begins[one.place] + one.size) for one in files if one.size]
        items = {whole["images"][g]["array"]: [one.item for one in files if one.group == g] for g in groups}
        meta["bytes"] = [POOL] if ranges else []
        meta["arrays"] = ({POOL: POOL} if ranges else {}) | {name: names[name] for name in items}
        return Part(meta, items, ranges)
