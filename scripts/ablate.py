"""What each choice of the network and of its training is worth: short runs, one thing changed at a time.

    python scripts/ablate.py data/mnist.npz:x_train --steps 400 --seeds 1
    python scripts/ablate.py digits --preset tiny --ledger toolkit --steps 400 --seeds 3 --held-out 400

Each row is a fit of so many steps, batches of 64, whose rate (-ELBO) is measured on the last items of the array, which
no run is fitted to. Milliseconds a step are wall time and compare within one run of this script only.
"""

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np

from vaedensity import items
from vaedensity.data.collection import LoadOptions
from vaedensity.data.load import load_array
from vaedensity.model.config import preset_config
from vaedensity.model.kinds import multiplications
from vaedensity.report.tables import render
from vaedensity.training.fit import fit
from vaedensity.training.gradients import (
    AddNoise,
    Centralise,
    Chain,
    ClipAdaptive,
    ClipGlobalNorm,
    ClipNorm,
    ClipValue,
    Sign,
    SkipOnSpike,
)
from vaedensity.training.objective import elbo_bits_per_dim
from vaedensity.training.penalties import Flood, PenaliseGradient
from vaedensity.training.schedule import FreeBits, Length, WarmupCosine
from vaedensity.training.settings import FitSettings

Variant = tuple[dict[str, Any], dict[str, Any]]
# name -> (changes of the network, changes of the settings), both from the preset and its defaults
NETWORK: dict[str, Variant] = {
    "as it is": ({}, {}),
    "Adam instead of Muon": ({}, {"optimizer": "adam"}),
    "no free bits": ({}, {"free_bits": FreeBits(0.0)}),
    "no neighbours": ({"neighbours": 0}, {}),
    "8 neighbours": ({"neighbours": 8}, {}),
    "4 sub-images": ({"sub_images": 4}, {}),
    "4 sub-images, no neighbours, Adam": ({"sub_images": 4, "neighbours": 0}, {"optimizer": "adam"}),
    "no residual blocks": ({"blocks": 0}, {}),
    "2 blocks a sub-image": ({"sub_image_blocks": 2}, {}),
    "one level of latents": ({"latents": ((2, 1),), "widths": (32,), "sub_images": 4}, {}),
    "wider": ({"widths": (64, 48)}, {}),
}
TOOLKIT: dict[str, Variant] = {
    "as it is": ({}, {}),
    "encoder at half the rate": ({}, {"scales": {"stem": 0.5, "from_encoder": 0.5}}),
    "pixels' networks at twice the rate": ({}, {"scales": {"sub_image_blocks": 2.0, "heads": 2.0, "pixel_in": 2.0}}),
    "all at twice the rate": ({}, {"schedule": WarmupCosine(peak=0.004)}),
    "no clipping": ({}, {"gradient": ClipGlobalNorm(1e9)}),
    "every entry clipped at 0.01": ({}, {"gradient": ClipValue(0.01)}),
    "every tensor clipped at 0.1": ({}, {"gradient": ClipNorm(0.1)}),
    "signs": ({}, {"gradient": Sign()}),
    "spikes of 3 means skipped": ({}, {"gradient": Chain([SkipOnSpike(3.0), ClipGlobalNorm(1.0)])}),
    "adaptive clipping 0.02": ({}, {"gradient": ClipAdaptive(0.02)}),
    "centralised gradients": ({}, {"gradient": Chain([Centralise(), ClipGlobalNorm(1.0)])}),
    "gradient noise 0.001": ({}, {"gradient": Chain([ClipGlobalNorm(1.0), AddNoise(0.001)])}),
    "gradient penalty 0.0005": ({}, {"terms": (PenaliseGradient(0.0005),)}),
    "flooding at 1.0": ({}, {"terms": (Flood(1.0),)}),
    "Adam": ({}, {"optimizer": "adam"}),
    "Adam, rate 0.004": ({}, {"optimizer": "adam", "schedule": WarmupCosine(peak=0.004)}),
    "EGDD, rate 0.02": ({}, {"optimizer": "egdd", "schedule": WarmupCosine(peak=0.02)}),
    "two rates, 0.1": ({}, {"optimizer": "two-rate", "schedule": WarmupCosine(peak=0.1)}),
    "categorical": ({"likelihood": "categorical", "neighbours": 0}, {}),
}
LEDGERS = {"network": NETWORK, "toolkit": TOOLKIT}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--ledger", choices=LEDGERS, default="network")
    parser.add_argument("--only", nargs="*", help="some of the ledger's rows")
    parser.add_argument("--held-out", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    collection, array = load_array(options.data, LoadOptions("data", False))
    data = items.require_items(array, collection.source)
    levels, values = items.value_map(data)
    if values is not None:
        data, _ = items.apply_map(data, levels, values)
    train, held_out = np.ascontiguousarray(data[: -options.held_out]), np.ascontiguousarray(data[-options.held_out :])
    base = preset_config(options.preset, data.shape[1:], levels)
    records = []
    variants = LEDGERS[options.ledger]
    if unknown := set(options.only or ()) - set(variants):
        parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join(variants)}")
    for name in options.only or variants:
        network, settings = variants[name]
        rates, seconds, kl = [], 0.0, []
        for seed in range(options.seeds):
            started = time.monotonic()
            seen: list[dict[str, Any]] = []
            run = FitSettings(Length(steps=options.steps), seed=seed, validate_every=options.steps, **settings)
            model = fit(train, held_out[:64], replace(base, **network), run, observers=(seen.append,)).model
            seconds += time.monotonic() - started
            rates.append(elbo_bits_per_dim(model, held_out))
            kl.append(np.mean([r["kl_bits_per_dim"] for r in seen[-50:]]))
        record = {
            "variant": name,
            "bits_per_dim": float(np.mean(rates)),
            "spread": float(np.ptp(rates)) if len(rates) > 1 else None,
            "kl_bits_per_dim": float(np.mean(kl)),
            "ms_per_step": 1000 * seconds / (options.seeds * options.steps),
            "parameters": sum(p.numel() for p in model.parameters()),
            "multiplications_per_dim": multiplications(model.config) / model.config.dims,
        }
        records.append(record)
        print(json.dumps(record), flush=True)
    if not options.json:
        rows = [
            [
                r["variant"],
                f"{r['bits_per_dim']:.4f}",
                "" if r["spread"] is None else f"{r['spread']:.4f}",
                f"{r['kl_bits_per_dim']:.4f}",
                f"{r['multiplications_per_dim'] / 1e3:.1f}",
                str(r["parameters"]),
                f"{r['ms_per_step']:.0f}",
            ]
            for r in records
        ]
        title = f"{collection.source}, {options.preset}, {options.steps} steps, {options.seeds} seeds"
        head = ["", "bits/dim", "spread", "of it KL", "1000 mult./dim", "parameters", "ms a step"]
        print(*render(title, head, rows), sep="\n")


if __name__ == "__main__":
    main()
