"""The network: causality of its sub-images, sizes, and that both readings of log w agree."""

from dataclasses import replace

import pytest
import torch

from vaedensity.model.config import PRESETS, VAEConfig, preset_config
from vaedensity.model.hierarchical import HierarchicalVAE
from vaedensity.model.likelihood import LogisticMixture


def model_for(shape: tuple[int, int, int], levels: int, preset: str = "tiny", **changes: int) -> HierarchicalVAE:
    torch.manual_seed(0)
    return HierarchicalVAE(replace(preset_config(preset, shape, levels), **changes)).eval()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5), (1, 1, 9), (1, 28, 28)])
@pytest.mark.parametrize("sub_images", [4, 7])
def test_sub_images_are_views_that_cover_an_image_once(shape: tuple[int, int, int], sub_images: int) -> None:
    model = model_for(shape, 256, sub_images=sub_images)
    x = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    parts, before = model.split_sub_images(x), x.clone()
    assert len(parts) == sub_images and sum(p[0].numel() for p in parts) == x[0].numel()
    for part in parts:
        part += 1  # 255 becomes 0
    assert torch.equal(x, before + 1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5)])
@pytest.mark.parametrize(("sub_images", "neighbours"), [(4, 0), (4, 8), (7, 0), (7, 8), (7, 3)])
def test_no_sub_image_sees_itself_or_what_comes_later(
    shape: tuple[int, int, int], sub_images: int, neighbours: int
) -> None:
    model = model_for(shape, 256, sub_images=sub_images, neighbours=neighbours)
    x = torch.randint(0, 256, (1, *shape))
    with torch.no_grad():
        h = torch.randn(1, model.config.widths[-1], *model.latent_shapes[-1][1:])
        before = [p for p, _ in model.walk_sub_images(x, h)]
        for index in range(sub_images):
            changed = x.clone()
            part = model.split_sub_images(changed)[index]
            part.copy_(255 - part)
            after = [p for p, _ in model.walk_sub_images(changed, h)]
            for earlier in range(index + 1):
                assert torch.equal(before[earlier], after[earlier])
            assert index == sub_images - 1 or not torch.equal(before[index + 1], after[index + 1])


@pytest.mark.parametrize("sub_images", [4, 7])
def test_filling_sub_images_sees_what_walking_them_sees(sub_images: int) -> None:
    model = model_for((3, 7, 6), 256, sub_images=sub_images, neighbours=8)
    x = torch.randint(0, 256, (2, 3, 7, 6), dtype=torch.uint8)
    with torch.no_grad():
        h = torch.randn(2, model.config.widths[-1], *model.latent_shapes[-1][1:])
        walked, seen = [p for p, _ in model.walk_sub_images(x, h)], []
        parts = model.split_sub_images(x)

        def choose(index: int, parameters: torch.Tensor) -> torch.Tensor:
            seen.append(parameters)
            return parts[index]

        assert torch.equal(model.fill_sub_images(h, choose), x)
    assert all(torch.equal(a, b) for a, b in zip(walked, seen))


def test_neighbours_are_known_and_near() -> None:
    from vaedensity.model.sub_images import FOUR, SEVEN, known_neighbours

    assert [len(known_neighbours(FOUR, i, 8)) for i in range(4)] == [0, 4, 4, 8]
    assert [len(known_neighbours(SEVEN, i, 8)) for i in range(7)] == [0, 4, 4, 8, 4, 4, 8]
    assert known_neighbours(SEVEN, 3, 4) == [(0, -2), (0, 2), (-2, 0), (2, 0)]
    assert known_neighbours(FOUR, 2, 8) == [(0, -1), (0, 1), (-1, 0), (1, 0)]
    assert known_neighbours(FOUR, 3, 2) == [(0, -1), (0, 1)]


def test_a_copying_component_sits_on_its_neighbour() -> None:
    """In both readings, and in colour with whatever the channels before have moved by."""
    for channels, exact in ((1, False), (1, True), (3, False), (3, True)):
        likelihood = LogisticMixture(256, 2, channels)
        n, outputs = 4, sum(len(starts) for _, starts in likelihood.outputs(4))
        y = torch.zeros(1, outputs, channels, 1, 1)
        near = torch.randint(0, 256, (1, n, channels, 1, 1)).float()
        if channels == 3:
            y[:, -12:] = 64.0 if exact else 1.0  # green follows red, blue both
        means = likelihood.complete(y, near, exact)[:, 6:12] / (8.0 if exact else 2.0**-likelihood.exponent)
        x = near[0, :, :, 0, 0] - 128
        expected = x.clone()
        if channels == 3:
            expected[:, 1], expected[:, 2] = x[:, 1] - x[:, 0], x[:, 2] - x[:, 0] - x[:, 1]
        assert torch.allclose(means[0, 2:, :, 0, 0], expected, atol=1e-4)
        average = expected.mean(0)
        assert torch.allclose(means[0, 1, :, 0, 0], average, atol=0.13)  # rounded to a step of 1/8
        assert (means[0, 0] == 0).all()


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
        {"sub_images": 7.0},
        {"neighbours": 3.5},
        {"neighbours": True},
        {"widths": (32.0, 24)},
        {"latents": ((4, 4.0), (2, 1))},
        {"height": "8"},
        {"likelihood": "gaussian"},
        {"likelihood": 3},
        {"likelihood": "categorical", "neighbours": 4},
    ],
)
def test_impossible_configurations_are_rejected(change: dict[str, object]) -> None:
    good = preset_config("tiny", (1, 8, 8), 17).to_json()
    with pytest.raises(ValueError, match="model configuration"):
        VAEConfig.from_json(good | change)
