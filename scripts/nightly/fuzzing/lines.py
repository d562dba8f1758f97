"""Which lines of the package an input reaches."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import vaedensity

PACKAGE = str(Path(vaedensity.__file__).parent)
Line = tuple[str, int]


def own(code: CodeType) -> bool:
    return code.co_filename.startswith(PACKAGE)


def lines_of(code: CodeType) -> set[int]:
    return {line for _, _, line in code.co_lines() if line}


class Traced:
    """Lines by `sys.settrace`: slow, but in every version. Functions whose lines are all ``seen`` are passed over."""

    def __init__(self) -> None:
        self.seen: set[Line] = set()
        self.whole: dict[CodeType, bool] = {}

    def new(self, run: Callable[[], Any]) -> set[Line]:
        """Lines that ``run`` reaches and no run before it has; whatever it raises is raised."""
        found: set[Line] = set()
        seen, whole = self.seen, self.whole

        def enter(frame: FrameType, event: str, argument: Any) -> Any:
            code = frame.f_code
            if code not in whole:
                whole[code] = not own(code)
            if whole[code]:
                return None
            left = {line for line in lines_of(code) if (code.co_filename, line) not in seen}
            if not left:
                whole[code] = True
                return None
            file = code.co_filename

            def step(frame: FrameType, event: str, argument: Any) -> Any:
                if event == "line" and frame.f_lineno in left:
                    found.add((file, frame.f_lineno))
                return step

            return step

        sys.settrace(enter)
        try:
            run()
        finally:
            sys.settrace(None)
            found -= seen
            seen |= found
        return found


def reached(run: Callable[[], Any]) -> set[Line]:
    """All lines that ``run`` reaches, whatever it raises."""
    traced = Traced()
    with suppress(Exception):
        traced.new(run)
    return traced.seen


class Monitored:
    """Lines by `sys.monitoring` (Python 3.12): each is heard of once, so that this costs next to nothing."""

    def __init__(self) -> None:
        self.seen: set[Line] = set()
        self.found: set[Line] = set()
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined]
        tool = monitoring.COVERAGE_ID

        def hear(code: CodeType, line: int) -> Any:
            if own(code):
                self.found.add((code.co_filename, line))
            return monitoring.DISABLE

        monitoring.use_tool_id(tool, "fuzz")
        monitoring.register_callback(tool, monitoring.events.LINE, hear)
        monitoring.set_events(tool, monitoring.events.LINE)

    def new(self, run: Callable[[], Any]) -> set[Line]:
        """As of :class:`Traced`."""
        self.found = set()
        try:
            run()
        finally:
            self.found -= self.seen
            self.seen |= self.found
        return self.found


def cheap() -> bool:
    """Whether every run can be watched."""
    return hasattr(sys, "monitoring")


def watcher() -> Traced | Monitored:
    return Monitored() if cheap() else Traced()
