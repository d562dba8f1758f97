"""What of a latent and of a pixel is coded first: digits, or a run of symbols."""

from dataclasses import dataclass

import numpy as np
import torch

from vaedensity.arithmetic import fresh_thread
from vaedensity.coding.ans import Stacks
from vaedensity.coding.codec import ONE_DIGIT, RADIX, IntervalCodec, Table, TableCodec
from vaedensity.coding.escape import CentreFirst, EndsFirst
from vaedensity.coding.latent_table import STEPS, CoarseGaussian, LatticeGaussian
from vaedensity.coding.pixel_table import MixtureTable, steps_per_level
from vaedensity.coding.stacks_choice import fastest_stacks
from vaedensity.coding.windows import windows


@dataclass(frozen=True)
class Order:
    """``centre_first``: of latents, the sixteen symbols around their mean. ``ends_first``: of pixels, the lowest and the highest
    value; worth while where these are many."""

    centre_first: bool = False
    ends_first: bool = False

    def latents(self, table: LatticeGaussian | CoarseGaussian) -> IntervalCodec:
        """The codec of latents with ``table``."""
        return CentreFirst(table) if self.centre_first and isinstance(table, LatticeGaussian) else TableCodec(table)

    def pixels(self, table: Table) -> IntervalCodec:
        """The codec of pixels with ``table``."""
        apart = self.ends_first and table.size > ONE_DIGIT
        return EndsFirst(table) if apart and isinstance(table, MixtureTable) else TableCodec(table)


DIGITS = Order()
ORDERS = {16: DIGITS, 18: Order(centre_first=True), 20: Order(centre_first=True, ends_first=True)}
"""By the number of the coder in an archive; with coupled particles it is one more."""
SEQUENCE_CODER = 22  # of series: a latent and a value are always digits, value after value


def order_of(coder: int) -> Order:
    """The order in which the model's ``coder`` works."""
    return DIGITS if coder == SEQUENCE_CODER else ORDERS[coder - coder % 2]


@fresh_thread()
def prepare_tables(levels: int) -> None:
    """Build and compile what coding needs, so that forked processes share it."""
    if fastest_stacks() is not Stacks:
        stacks = fastest_stacks().random(1, 100, seed=0)
        mixture = MixtureTable(torch.zeros(1, 3, 1), max(3, levels), 1)
        for codec in (CentreFirst(LatticeGaussian(torch.zeros(1, 1), torch.zeros(1, 1))), TableCodec(mixture)):
            codec.push(stacks, codec.pop(stacks))
        stacks.push_intervals(np.array([[5]]), np.array([[9]]))
        stacks.pop_rows(np.array([[[0, 5, 1 << 24]]]))
        return
    windows("gaussian", STEPS)
    windows("gaussian", RADIX * STEPS)
    if levels > ONE_DIGIT:
        windows("logistic", steps_per_level(levels))
        windows("logistic", RADIX * steps_per_level(levels))
        windows("logistic", (levels - 2) * steps_per_level(levels), 2)
