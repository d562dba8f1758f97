"""Train a released checkpoint again, exactly as its card says.

    python scripts/train_released.py mnist --data data        # needs data/mnist.npz from get_data.py
    python scripts/train_released.py digits

Interrupt and run again with --resume to train in several sittings; with --steps N or another --preset behind the name
to train longer or larger, which a GPU is for. Data come from get_data.py. The models called NAME-1 were made by an earlier
version (their cards say how) and cannot be made again by this one.
"""

import argparse
import subprocess
import sys
from pathlib import Path

# name -> (data, preset, steps, further options)
RECIPES: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    "digits": ("digits:train", "tiny", 1500, ()),
    "mnist": ("{data}/mnist.npz:x_train", "small", 6000, ("--valid-fraction", "0.02")),
    "mnist-fast": ("{data}/mnist.npz:x_train", "fast", 3000, ("--valid-fraction", "0.02")),
    "mnist-binary": ("{data}/mnist-binary.npz:x_train", "small", 2500, ("--valid-fraction", "0.02")),
    "fashion-mnist": ("{data}/fashion-mnist.npz:x_train", "small", 4500, ("--valid-fraction", "0.02")),
    "cifar10": ("{data}/cifar10.npz:x_train", "small", 3000, ("--valid-fraction", "0.02")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", default="data")
    parser.add_argument("--to", type=Path, default=Path("checkpoints"))
    options, rest = parser.parse_known_args()
    data, preset, steps, further = RECIPES[options.name]
    recipe = [data.format(data=options.data), "--preset", preset, "--steps", str(steps), *further]
    command = ["vaedensity", "fit", *recipe, "-o", str(options.to / f"{options.name}.safetensors"), *rest]
    print("+", " ".join(command), flush=True)
    sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
