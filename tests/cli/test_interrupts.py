"""Ctrl-C: nothing is left behind but what a run needs to go on."""

import json
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rejections import COMMAND, INTERRUPTED, Done, Refused, saved

pytestmark = pytest.mark.usefixtures("no_released")


def interrupt(arguments: list[object], ready: Callable[[str], bool]) -> tuple[int, str]:
    """Start a command, send SIGINT once ``ready`` (given its stderr so far); status and stderr."""
    with tempfile.NamedTemporaryFile("w+") as log:
        process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=log)
        deadline = time.monotonic() + 120
        try:
            while not ready(Path(log.name).read_text()):
                assert process.poll() is None and time.monotonic() < deadline, Path(log.name).read_text()
                time.sleep(0.003)
            process.send_signal(signal.SIGINT)
            process.wait(120)
        finally:
            process.kill()
            process.wait()
        return process.returncode, Path(log.name).read_text()


@pytest.mark.parametrize("force", [False, True])
def test_ctrl_c_while_compressing(force: bool, model: Path, tmp_path: Path, unchanged: Callable[..., Any]) -> None:
    if force:
        (tmp_path / "a.vdz").write_bytes(b"mine")
    with unchanged(tmp_path):
        status, said = interrupt(
            ["compress", "digits", "-o", tmp_path / "a.vdz", "-m", model, *(["-f"] if force else [])],
            lambda said: any(tmp_path.glob(".*.partial")),
        )
    assert status == INTERRUPTED
    assert said == "vaedensity: interrupted; nothing was written\n"


def test_ctrl_c_while_decompressing(
    model: Path, tmp_path: Path, digits: np.ndarray, done: Done, unchanged: Callable[..., Any]
) -> None:
    data = saved(tmp_path / "d.npy", digits[:400])
    done("compress", data, "-o", tmp_path / "a.vdz", "-m", model, "--no-verify")
    with unchanged(tmp_path):
        status, said = interrupt(
            ["decompress", tmp_path / "a.vdz", "-o", tmp_path / "out" / "deep", "-m", model],
            lambda said: any(tmp_path.glob("out/deep/.*.partial")),
        )
    assert status == INTERRUPTED
    assert said == "vaedensity: interrupted; nothing was written\n"


def test_ctrl_c_while_fitting_saves_the_run_and_resume_continues_it(tmp_path: Path, done: Done) -> None:
    out = tmp_path / "m.safetensors"
    line = ["fit", "digits:train", "-o", out, "--preset", "tiny", "--batch-size", "32", "--device", "cpu"]
    status, said = interrupt([*line, "--steps", "100000"], lambda said: "step 1 " in said)
    assert status == INTERRUPTED
    last = said.splitlines()[-1]
    found = re.fullmatch(r"vaedensity: interrupted at step (\d+); state saved to (.*), go on with --resume", last)
    assert found, said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors.metrics.jsonl", "m.safetensors.state"]
    assert Path(found[2]) == tmp_path / "m.safetensors.state" and int(found[1]) >= 1
    more = int(found[1]) + 3
    assert done(*line, "--steps", more, "--resume")["steps"] == more
    steps = [json.loads(text)["step"] for text in (tmp_path / "m.safetensors.metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors", "m.safetensors.metrics.jsonl"]


def test_ctrl_c_before_anything_was_done(refused: Refused, few: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vaedensity.data.load.load", stop)
    assert "interrupted" in refused(INTERRUPTED, "compress", few, "-o", tmp_path / "a.vdz")
