"""Multiplications are counted as by hand."""

from vaedensity.model.config import VAEConfig, preset_config
from vaedensity.model.kinds import multiplications


def test_by_hand() -> None:
    c = VAEConfig(8, 8, 1, 2, ((2, 3),), (5,), blocks=0, sub_image_blocks=0, components=1)
    at_half = 16 * (4 * 5 * 9)  # stem
    at_half += 16 * (5 * 5 * 9 + 5 * 5)  # from the encoder and the decoder
    at_half += 16 * 4 * (5 * 3)  # two heads of prior and posterior
    at_half += 16 * (3 * 5 * 9)  # latents in
    at_half += 16 * 4 * 5 + 16 * 3 * (5 * 9)  # four sub-images' heads, three sub-images' pixels
    assert multiplications(c) == at_half


def test_more_network_costs_more() -> None:
    costs = [multiplications(preset_config(p, (1, 28, 28), 256)) for p in ("fast", "tiny", "small", "medium", "base")]
    assert costs == sorted(costs) and costs[0] == 4465664
