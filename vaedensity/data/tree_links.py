"""Which links of a tree stay inside it."""

from typing import Any

from vaedensity.data.tree_meta import FOLDER, LINK
from vaedensity.data.tree_names import fits_system, shown
from vaedensity.errors import UsageError

CHOICES = ("inside", "any", "none")


def require_links(meta: dict[str, Any], links: str) -> None:
    """Raise UsageError where links of restore metadata that makes sense are not to be made: "inside" those that may lead out of
    the tree; "any" and "none" do not mind."""
    if links not in CHOICES:
        raise UsageError(f"links {links}: expected {', '.join(CHOICES)}")
    if links == "inside" and meta["links"] and (out := _leading_out(meta)):
        name, target = out
        raise UsageError(
            f"{shown(meta['name'])}: {shown(name)} is a link that may lead out of the folder, to {shown(target)}; "
            "pass links=any to make such links, links=none to leave links out"
        )


def _leading_out(meta: dict[str, Any]) -> tuple[str, str] | None:
    """(name, target) of a link that is absolute, or takes a way up that leads out of the tree or is not known to be one
    of the tree's own folders, as beyond another link it is not."""
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
