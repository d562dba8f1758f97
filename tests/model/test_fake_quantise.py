"""Rehearsing layers round as quantised ones do, and let gradients through."""

import copy

import torch
from torch.nn import functional as F

from vaedensity.model.config import preset_config
from vaedensity.model.hierarchical import HierarchicalVAE
from vaedensity.model.integer_conv import Grid, IntegerConv, straight_through


def test_outputs_are_those_of_the_quantised_layer() -> None:
    torch.manual_seed(0)
    conv = IntegerConv(16, 64, 3, Grid(128.0, 0, 1023), 128.0)
    with torch.no_grad():
        conv.bias.normal_()
    quantised = copy.deepcopy(conv)
    quantised.load_integers(conv.quantise(), "test")
    integers = torch.randint(0, 1024, (2, 16, 6, 6)).float()
    conv.fake_quantising = True
    with torch.no_grad():
        real, exact = conv(integers / 128), quantised(integers) / 128
    assert torch.equal(real * 128, (real * 128).round())
    off = (real - exact).abs().amax((0, 2, 3))
    assert (off <= 8 / 128).all()  # the quantised layer rounds biases too, and to a finer step where it can
    assert (off == 0).float().mean() > 0.5
    plain = copy.deepcopy(conv)
    plain.fake_quantising = False
    with torch.no_grad():
        assert not torch.allclose(plain(integers / 128), real, atol=1e-4)


def test_gradients_pass_straight_through() -> None:
    x = torch.randn(50, requires_grad=True)
    y = straight_through(x, 0.25)
    assert torch.equal(y.detach(), torch.round(x.detach() * 4) / 4)
    y.square().sum().backward()
    assert x.grad is not None and torch.allclose(x.grad, 2 * y.detach())
    conv = IntegerConv(3, 4, 3, Grid(128.0, 0, 1023), 128.0)
    conv.fake_quantising = True
    inputs = torch.rand(2, 3, 5, 5)
    conv(inputs).sum().backward()
    weight = torch.zeros_like(conv.weight, requires_grad=True)
    F.conv2d(inputs, weight, None, 1, 1).sum().backward()
    assert weight.grad is not None and conv.weight.grad is not None
    assert torch.allclose(conv.weight.grad, weight.grad, atol=1e-4)


def test_a_network_fake_quantises_as_a_whole_and_stops() -> None:
    torch.manual_seed(0)
    model = HierarchicalVAE(preset_config("small", (1, 8, 8), 256)).eval()
    x, noise = torch.randint(0, 256, (3, 1, 8, 8)), torch.randn(3, model.noise_dim)
    with torch.no_grad():
        before = model.elbo_terms(x, noise)[0]
        model.fake_quantise(True)
        during = model.elbo_terms(x, noise)[0]
        model.fake_quantise(False)
        after = model.elbo_terms(x, noise)[0]
    assert torch.equal(before, after) and not torch.equal(before, during)
    assert (during - before).abs().max() < 0.01 * before.abs().max()
