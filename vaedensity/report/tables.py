"""Tables for people."""

from itertools import zip_longest

from vaedensity.errors import without_controls

GAP = 2
SHORTEST = 24  # columns of the first column at least, where it has words of so many; longer ones are cut


def render(title: str, columns: list[str], rows: list[list[str]], width: int | None = None) -> list[str]:
    """The lines of a plain table: the first column flush left, the others flush right.

    Cells that do not fit are continued below, between words where there are any. Where the table does not fit even so,
    every row is written as text.

    Parameters
    ----------
    title : str
        A line above, unless empty.
    columns : list of str
    rows : list of list of str
    width : int, optional
        Columns of the terminal; by default as wide as it comes.

    Examples
    --------
    >>> print(*render("", ["codec", "bytes"], [["zlib", "12"], ["xz", "7"]]), sep="\\n")
    codec  bytes
    ------------
    zlib      12
    xz         7
    """
    cells = [[without_controls(cell) for cell in row] for row in [columns, *rows]]
    widths = _widths(cells, width)
    body = _texts(cells, width or 0) if widths is None else _drawn(cells, widths)
    return [*(_wrapped(without_controls(title), width) if title else ()), *body]


def _widths(cells: list[list[str]], width: int | None) -> list[int] | None:
    """How wide each column is to be, the widest made narrower until all fit; None where they cannot."""
    from rich.cells import cell_len

    found = [max(map(cell_len, column)) for column in zip(*cells)]
    least = [max((cell_len(word) for cell in column for word in cell.split()), default=0) for column in zip(*cells)]
    least[0] = min(least[0], SHORTEST)
    while width is not None and sum(found) + GAP * (len(found) - 1) > width:
        wide = [i for i in range(len(found)) if found[i] > least[i]]
        if not wide:
            return None
        found[max(wide, key=lambda i: found[i])] -= 1
    return found


def _drawn(cells: list[list[str]], widths: list[int]) -> list[str]:
    from rich.cells import cell_len

    lines = []
    for row in cells:
        for parts in zip_longest(*map(_wrapped, row, widths), fillvalue=""):
            blanks = [" " * (width - cell_len(part)) for part, width in zip(parts, widths)]
            first, *others = zip(parts, blanks)
            lines.append((" " * GAP).join(["".join(first), *(blank + part for part, blank in others)]).rstrip())
        if row is cells[0]:
            lines.append("-" * (sum(widths) + GAP * (len(widths) - 1)))
    return lines


def _texts(cells: list[list[str]], width: int) -> list[str]:
    lines = []
    for name, *values in cells[1:]:
        named = ", ".join(f"{column} {value}" for column, value in zip(cells[0][1:], values) if value)
        lines += _wrapped(name, width) + [f"  {line}" for line in _wrapped(named, max(1, width - 2))]
    return lines


def _wrapped(text: str, width: int | None) -> list[str]:
    """``text`` in lines of at most ``width`` columns, cut between words where there are any."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    if width is None or cell_len(text) <= width:
        return [text]
    return [line.plain.rstrip() for line in Text(text).wrap(Console(), max(1, width), overflow="fold")] or [""]
