"""Time per importance sample: vaedensity's ``score`` against pythae's ``get_nll``, same networks, same K.

    pip install --no-deps pythae && pip install cloudpickle imageio pydantic tqdm     # in an environment of its own
    python scripts/bench_score.py data/mnist.npz:x_test -k 64 1000 --items 8 --repeats 3

Both run under no_grad on the same items in one process, in turns; the median ratio counts. Networks: pythae's own
MLP and its convolutional MNIST benchmark (weights as initialised: time does not depend on them), and the
released mnist model, whose rival is the same loop written out: one item's samples at a time, the
encoder run on every copy. Both sides share the encoder and decoder modules; pixels are weighed by each side's own
code, pythae's binary cross-entropy and one logarithm here. get_nll draws whole batches of 100: asked for K = 64 it
draws, and averages, 100; its time is given per sample asked for. Ends with a profile of ``score`` on the released
model.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaedensity.api.model_items import scoring_model
from vaedensity.data.load import load_array
from vaedensity.density.estimator import score
from vaedensity.density.importance import ImportanceSampling
from vaedensity.model.checkpoint import load_model
from vaedensity.model.latent_model import Gaussian, LatentModel, LogWeight
from vaedensity.model.released import resolve
from vaedensity.units import LN2

RIVAL_BATCH = 100  # get_nll's default


class FlatVAE(LatentModel):
    """pythae's VAE, Bernoulli pixels, as a LatentModel: the same encoder and decoder modules."""

    uniform_dim = 0

    def __init__(self, vae: Any, latent_dim: int):
        super().__init__()
        self.encoder, self.decoder, self.noise_dim = vae.encoder, vae.decoder, latent_dim

    def encode(self, x: Tensor) -> list[Tensor]:
        out = self.encoder(x.float())
        return [out.embedding, out.log_covariance / (2 * LN2)]

    def log_weight(self, x: Tensor, context: list[Tensor], noise: Tensor) -> LogWeight:
        posterior = Gaussian(*context)
        z = posterior.sample(noise)
        prior = Gaussian(torch.zeros_like(z), torch.zeros_like(z))
        picture = self.decoder(z)["reconstruction"].flatten(1)
        # The mass of the value that was seen; binary_cross_entropy takes two logarithms to say the same.
        log_likelihood = torch.where(x.flatten(1) > 0, picture, 1 - picture).log().clamp(min=-100).sum(1)
        return LogWeight(log_likelihood, prior.log_prob(z), posterior.log_prob(z))

    def _no(self, *args: Any) -> Any:
        raise NotImplementedError("scoring asks for none of these")

    simulate = posterior_noise = prior_noise = log_likelihood_under_prior = _no


@torch.no_grad()
def one_item_at_a_time(model: LatentModel, x: Tensor, k: int) -> float:
    """What get_nll does, for any LatentModel."""
    log_p = []
    for item in x:
        parts = []
        for _ in range(max(1, k // RIVAL_BATCH)):
            copies = torch.cat(RIVAL_BATCH * [item[None]])
            parts.append(
                model.log_weight(copies, model.encode(copies), torch.randn(RIVAL_BATCH, model.noise_dim)).total
            )
        weights = torch.cat(parts)
        log_p.append((torch.logsumexp(weights, 0) - np.log(len(weights))).item())
    return float(np.mean(log_p))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("-k", "--samples", type=int, nargs="+", default=[64, 1000])
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="mnist")
    options = parser.parse_args()
    array = load_array(options.data)[1][: options.items]
    print(
        f"{options.items} items, {torch.get_num_threads()} threads, torch {torch.__version__}; "
        "microseconds per sample asked for\n"
    )
    print(
        "| network | rival | K | rival | score | times faster | rival says, nats | score says, nats |\n"
        + "|---" * 8
        + "|"
    )
    bits = (array > 127).astype(np.uint8)[:, None]
    for name, vae in rivals():
        model, x = FlatVAE(vae, vae.model_config.latent_dim).eval(), torch.from_numpy(bits).float()
        for k in options.samples:

            def rival(vae: Any = vae, x: Tensor = x, k: int = k) -> float:
                with torch.no_grad():
                    return float(vae.get_nll(x, n_samples=k))

            compare(name, "pythae get_nll", rival, model, bits, k, options.repeats)
    network = scoring_model(load_model(resolve(options.model)), "cpu")
    items, x = array[:, None], torch.from_numpy(array[:, None])
    for k in options.samples:
        compare(
            f"{options.model} (released)",
            "the same loop",
            lambda k=k: one_item_at_a_time(network, x, k),  # type: ignore[misc]
            network,
            items,
            k,
            options.repeats,
        )
    profile(network, items, max(options.samples))
    print(f"for comparison, a float32 product of 2048x2048 matrices: {matrix_gflops():.0f} GFLOP/s, best of 10")


def matrix_gflops(size: int = 2048) -> float:
    """What the processor reaches where nothing but multiplying is asked of it."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(11):
        started = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds[1:]) / 1e9


def rivals() -> list[tuple[str, Any]]:
    try:
        from pythae.models import VAE, VAEConfig
        from pythae.models.nn.benchmarks.mnist import Decoder_Conv_AE_MNIST, Encoder_Conv_VAE_MNIST
    except ImportError as error:
        print(f"(pythae left out: {error})")
        return []
    torch.manual_seed(0)
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=16, reconstruction_loss="bce")
    convolutional = VAE(config, encoder=Encoder_Conv_VAE_MNIST(config), decoder=Decoder_Conv_AE_MNIST(config))
    return [("pythae MLP 784-512-16", VAE(config).eval()), ("pythae convolutional MNIST", convolutional.eval())]


def compare(
    name: str, rival_name: str, rival: Callable[[], float], model: LatentModel, items: np.ndarray, k: int, repeats: int
) -> None:
    batch = SimpleNamespace(rival=[], ours=[])
    says = (0.0, 0.0)
    for _ in range(repeats):
        started = time.perf_counter()
        theirs = rival()
        between = time.perf_counter()
        ours = float(score(model, items, ImportanceSampling(k)).log_prob_nats.mean())
        batch.rival.append(between - started)
        batch.ours.append(time.perf_counter() - between)
        says = theirs, ours
    ratio = statistics.median(a / b for a, b in zip(batch.rival, batch.ours))
    scale = 1e6 / (len(items) * k)
    print(
        f"| {name} | {rival_name} | {k} | {statistics.median(batch.rival) * scale:.1f} | "
        f"{statistics.median(batch.ours) * scale:.1f} | {ratio:.2f} | {says[0]:.2f} | {says[1]:.2f} |",
        flush=True,
    )


def profile(model: LatentModel, items: np.ndarray, k: int) -> None:
    """Where score's time goes: inside the network (encoder, decoder, likelihood), and by kernel."""
    spent = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            nonlocal spent
            started = time.perf_counter()
            try:
                return function(*args)
            finally:
                spent += time.perf_counter() - started

        return run

    plain = model.encode, model.log_weight
    model.encode, model.log_weight = timed(model.encode), timed(model.log_weight)  # type: ignore[method-assign]
    started = time.perf_counter()
    score(model, items, ImportanceSampling(k))
    wall = time.perf_counter() - started
    model.encode, model.log_weight = plain  # type: ignore[method-assign]
    print(f"\nprofile of score: {100 * spent / wall:.1f} % of {wall:.1f} s inside the network")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as record:
        score(model, items[:2], ImportanceSampling(min(k, 500)))
    averages = sorted(record.key_averages(), key=lambda a: -a.self_cpu_time_total)
    total = sum(a.self_cpu_time_total for a in averages)
    for a in averages[:12]:
        print(f"  {100 * a.self_cpu_time_total / total:5.1f} %  {a.key}")


if __name__ == "__main__":
    main()
