"""Train a released checkpoint again, exactly as its card says.

    python scripts/train_released.py mnist --data data        # needs data/mnist.npz from get_data.py
    python scripts/train_released.py digits

Interrupt and run again with --resume to train in several sittings. Budgets are wall time on the
machine at hand: a faster one takes more steps and ends lower.
"""

import argparse
import subprocess
import sys
from pathlib import Path

RECIPES = {
    "digits": ["digits:train", "--preset", "tiny", "--steps", "1500"],
    "fashion-mnist": ["{data}/fashion-mnist.npz:x_train", "--preset", "small", "--budget", "50m"],
    "mnist": ["{data}/mnist.npz:x_train", "--preset", "small", "--budget", "6400s", "--valid-fraction", "0.02"],
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
