"""Train a released checkpoint again, as its card says.

    python scripts/train_released.py mnist --data data        # needs data/mnist.npz from get_data.py
    python scripts/train_released.py digits

A recipe of several sittings goes on from the first one's weights. Interrupt it and run it again: it resumes. Options
behind the name go to the last sitting, --steps N, say, which a GPU is for. Data come from get_data.py.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HELD_OUT = ("--valid-fraction", "0.02")
# name -> (data, preset, steps of each sitting, further options)
RECIPES: dict[str, tuple[str, str, tuple[int, ...], tuple[str, ...]]] = {
    "digits": ("digits:train", "tiny", (1500,), ("--rate", "0.002")),
    "mnist": ("{data}/mnist.npz:x_train", "small", (7000,), HELD_OUT),
    "mnist-large": ("{data}/mnist.npz:x_train", "medium", (6000,), HELD_OUT),
    "mnist-fast": ("{data}/mnist.npz:x_train", "fast", (8000,), (*HELD_OUT, "--rate", "0.002")),
    "mnist-binary": ("{data}/mnist-binary.npz:x_train", "medium", (2500, 8000), HELD_OUT),
    "fashion-mnist": ("{data}/fashion-mnist.npz:x_train", "medium", (4500,), HELD_OUT),
    "cifar10": ("{data}/cifar10.npz:x_train", "medium", (3000, 12000), HELD_OUT),
    "gcide": ("{data}/gcide-train.txt", "medium", (2000,), ("--kind", "sequence", "--valid-fraction", "0.005")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", default="data")
    parser.add_argument("--to", type=Path, default=Path("checkpoints"))
    options, rest = parser.parse_known_args()
    data, preset, sittings, further = RECIPES[options.name]
    goal, before = options.to / f"{options.name}.safetensors", None
    for number, steps in enumerate(sittings, 1):
        last = number == len(sittings)
        out = goal if last else goal.with_name(f"{options.name}.sitting-{number}.safetensors")
        if not last and out.exists():
            before = out
            continue
        recipe = [data.format(data=options.data), "--preset", preset, "--steps", str(steps), *further]
        recipe += ["--init", str(before)] if before else []
        command = ["vaedensity", "fit", *recipe, "-o", str(out), *(rest if last else [])]
        if out.with_name(out.name + ".state").exists() and "--resume" not in command:
            command.append("--resume")
        print("+", " ".join(command), flush=True)
        if status := subprocess.run(command).returncode:
            sys.exit(status)
        before = out


if __name__ == "__main__":
    main()
