"""Tables for people."""

from io import StringIO


def render(title: str, columns: list[str], rows: list[list[str]]) -> str:
    """A plain table; the first column flush left, the others flush right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    text = StringIO()
    Console(file=text, width=100, color_system=None).print(table)
    return text.getvalue().rstrip()
