"""The network: causality of its phases, sizes, and that both readings of log w agree."""

import pytest
import torch

from vaedensity.model.config import PRESETS, VAEConfig, preset_config
from vaedensity.model.hierarchical import HierarchicalVAE


def model_for(shape: tuple[int, int, int], levels: int, preset: str = "tiny") -> HierarchicalVAE:
    torch.manual_seed(0)
    return HierarchicalVAE(preset_config(preset, shape, levels)).eval()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5), (1, 1, 9), (1, 28, 28)])
def test_phases_split_and_join(shape: tuple[int, int, int]) -> None:
    model = model_for(shape, 256)
    x = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    parts = model.split_phases(x)
    assert sum(p[0].numel() for p in parts) == x[0].numel()
    assert torch.equal(model.join_phases(parts), x)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5)])
def test_no_phase_sees_itself_or_what_comes_later(shape: tuple[int, int, int]) -> None:
    model = model_for(shape, 256)
    x = torch.randint(0, 256, (1, *shape))
    with torch.no_grad():
        h = torch.randn(1, model.config.widths[-1], *model.latent_shapes[-1][1:])
        before = [p for p, _ in model.walk_phases(x, h)]
        for index, part in enumerate(model.split_phases(x)):
            parts = model.split_phases(x)
            parts[index] = 255 - part
            after = [p for p, _ in model.walk_phases(model.join_phases(parts), h)]
            for earlier in range(index + 1):
                assert torch.equal(before[earlier], after[earlier])
            assert index == 3 or not torch.equal(before[index + 1], after[index + 1])


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_build_and_give_finite_terms(preset: str) -> None:
    model = model_for((3, 16, 16), 256, preset)
    x = torch.randint(0, 256, (2, 3, 16, 16))
    log_likelihood, divergences = model.elbo_terms(x, torch.randn(2, model.noise_dim))
    assert log_likelihood.shape == (2,) and len(divergences) == len(model.latent_shapes)
    assert all(bool((d >= -1e-4).all()) for d in divergences) and bool(log_likelihood.isfinite().all())


def test_log_weight_averages_to_the_elbo() -> None:
    model = model_for((1, 8, 8), 17)
    with torch.no_grad():
        for p in model.posterior_heads.parameters():
            p.add_(0.2 * torch.randn_like(p))
        x = torch.randint(0, 17, (1, 1, 8, 8)).expand(20000, -1, -1, -1)
        noise = torch.randn(20000, model.noise_dim)
        weights = model.log_weight(x, model.encode(x), noise)
        log_likelihood, divergences = model.elbo_terms(x, noise)
        elbo = log_likelihood + sum(divergences, torch.zeros(20000)) * -1
    difference = (weights.total - elbo).mean()
    error = (weights.total - elbo).std() / 20000**0.5
    assert abs(float(difference)) < 4 * float(error)


@pytest.mark.parametrize(
    "change",
    [
        {"levels": 1},
        {"levels": 300},
        {"channels": 2},
        {"latents": ((3, 2),)},
        {"widths": (8,)},
        {"unit": 100},
        {"height": 0},
        {"blocks": 99},
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, object]) -> None:
    good = preset_config("tiny", (1, 8, 8), 17).to_json()
    with pytest.raises(ValueError, match="model configuration"):
        VAEConfig.from_json(good | change)
