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

RECIPES = {
    "digits": ["digits:train", "--preset", "tiny", "--steps", "1500"],
    "mnist": ["{data}/mnist.npz:x_train", "--preset", "small", "--steps", "6000", "--valid-fraction", "0.02"],
    "mnist-fast": ["{data}/mnist.npz:x_train", "--preset", "fast", "--steps", "3000", "--valid-fraction", "0.02"],
    "mnist-binary": [
        "{data}/mnist-binary.npz:x_train",
        "--preset",
        "small",
        "--steps",
        "3000",
        "--valid-fraction",
        "0.02",
    ],
    "fashion-mnist": [
        "{data}/fashion-mnist.npz:x_train",
        "--preset",
        "small",
        "--steps",
        "5000",
        "--valid-fraction",
        "0.02",
    ],
    "cifar10": ["{data}/cifar10.npz:x_train", "--preset", "small", "--steps", "3500", "--valid-fraction", "0.02"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", default="data")
    parser.add_argument("--to", type=Path, default=Path("checkpoints"))
    options, rest = parser.parse_known_args()
    recipe = [part.format(data=options.data) for part in RECIPES[options.name]]
    command = ["vaedensity", "fit", *recipe, "-o", str(options.to / f"{options.name}.safetensors"), *rest]
    print("+", " ".join(command), flush=True)
    sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
