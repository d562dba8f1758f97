"""Annealed importance sampling of log p(x) (Neal 2001; for VAEs Wu et al. 2017), in noise coordinates.

All latents of all levels are a smooth invertible map z = T(e; x) of standard normal noise e: to draw z from q(z|x), or
from p(z), is to draw e ~ N(0, I). In these coordinates the geometric path from q(z|x) to p(x, z) is

    f_b(e) = N(e; 0, I) exp(b * l(e)),   l(e) = log p(x|z) + log p(z) - log q(z|x)  at z = T(e; x)

(the Jacobians cancel). f_0 is normalised and f_1 integrates to p(x). The posterior's own scales are the metric of every
Hamiltonian step, and any LatentModel with a differentiable log-weight can be annealed.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaedensity.density.entropy import exponent_for_entropy
from vaedensity.density.estimate import Estimate, Kind
from vaedensity.density.estimator import Draws, ItemNoise, Sampler, TwoSided, gather
from vaedensity.density.hamiltonian import Chains, LogRatio, evaluate, transition
from vaedensity.density.importance import repeat
from vaedensity.density.weights import Rows, WeightSums
from vaedensity.errors import UsageError
from vaedensity.model.latent_model import LatentModel

ADAPTATION = 1.0  # log step size changes by this much per unit of missed acceptance
STEP_RANGE = (1e-4, 10.0)
JITTER = 0.2  # each trajectory's step varies by this share, so that none is periodic
STARTS = ("posterior", "prior")


@dataclass(frozen=True)
class Annealed(TwoSided):
    """log p(x) by annealed importance sampling with Hamiltonian transitions (Neal 2001, section 2).

        log (1/K) sum_k w_k,   w_k = prod_t f_{b_t}(e_{t-1}) / f_{b_{t-1}}(e_{t-1}),   K = ``samples`` chains

    e_t follows e_{t-1} by one Hamiltonian transition that keeps f_{b_t}. Each item has temperatures of its own, chosen
    by pilot chains that are then thrown away: each step leaves the incremental weights a normalised entropy exp(H)/n of
    ``entropy_share``, and the step size follows the acceptance towards ``target_acceptance``. Temperatures and step
    sizes do not depend on the K chains, so exp of the estimate is unbiased and the estimate a lower bound in
    expectation. For models whose weights vary too much for importance sampling (k-hat above 0.7).

    Parameters
    ----------
    samples : int
        K, the number of chains.
    start : str
        "posterior": from q(z|x). "prior": from p(z) (Wu et al. 2017), with many more temperatures, for models whose
        encoder is not to be trusted.
    entropy_share : float
        Between 0 and 1; the nearer 1, the more temperatures.
    leapfrog_steps : int
        Steps of each transition.
    target_acceptance : float
        Between 0 and 1.
    pilot_chains : int
        At least 2.
    most_temperatures : int
        Where the ladder is made to end.

    Raises
    ------
    UsageError
        For settings that make no sense.

    Examples
    --------
    >>> import vaedensity as vd
    >>> x = vd.load_digits()[-2:]
    >>> estimate = vd.score("digits", x, estimator=Annealed(samples=2, entropy_share=0.5, leapfrog_steps=2))
    >>> str(estimate.kind), estimate.samples.tolist()
    ('lower bound', [2, 2])
    """

    samples: int = 16
    start: str = "posterior"
    entropy_share: float = 0.97
    leapfrog_steps: int = 10
    target_acceptance: float = 0.8
    pilot_chains: int = 16
    most_temperatures: int = 1000
    name: ClassVar[str] = "annealed"
    kind = Kind.LOWER_BOUND

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise UsageError(f"annealed: found start {self.start!r}, expected one of {', '.join(STARTS)}")
        for word, value in (("entropy share", self.entropy_share), ("target acceptance", self.target_acceptance)):
            if not 0 < value < 1:
                raise UsageError(f"annealed: found {word} {value}, expected a number between 0 and 1")
        if not isinstance(self.samples, int) or self.samples < 1:
            raise UsageError(f"annealed: found {self.samples} chains, expected a whole number from 1 on")
        if self.pilot_chains < 2 or self.leapfrog_steps < 1 or self.most_temperatures < 1:
            raise UsageError("annealed: expected at least 2 pilot chains, 1 leapfrog step and 1 temperature")

    def sampler(self, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int) -> Sampler:
        return AnnealedChains(self, model, x, noise, batch_size)

    def upper(
        self, model: LatentModel, x: Tensor, latents: Tensor, noise: list[ItemNoise], batch_size: int
    ) -> Estimate:
        """An upper bound in expectation: the chains run backwards from the exact draw, and their weights estimate
        1 / p(x) without bias (Grosse et al. 2015, section 4)."""
        chains = AnnealedChains(self, model, x, noise, batch_size)
        with torch.no_grad():
            if self.start == "posterior":
                exact = model.posterior_noise(chains.context, latents)
            else:
                exact = model.prior_noise(latents)
        weights = WeightSums(len(x), self.samples, Kind.LOWER_BOUND)
        gather(chains.backwards(exact), weights, np.arange(len(x)), self.samples, batch_size)
        return weights.estimate().of_reciprocal()


@dataclass
class Ladder:
    """One item's temperatures 0 < b_1 < ... < b_T = 1 and the step size of the transition at each."""

    betas: list[float]
    steps: list[float]


class AnnealedChains:
    """Chains of a batch of items; each chain's randomness is a stream of its own."""

    def __init__(self, settings: Annealed, model: LatentModel, x: Tensor, noise: list[ItemNoise], batch_size: int):
        self.settings, self.model, self.x, self.noise = settings, model, x, noise
        self.dtype = next((p.dtype for p in model.parameters()), torch.float32)
        with torch.no_grad():
            self.context = [part.detach() for part in model.encode(x)]
        self.drawn = np.zeros(len(x), np.int64)
        per_pass = max(1, batch_size // settings.pilot_chains)
        self.ladders: list[Ladder] = []
        for begin in range(0, len(x), per_pass):
            self.ladders += self._pilot(np.arange(begin, min(len(x), begin + per_pass)))

    def __call__(self, rows: Rows, k: int) -> Draws:
        """Forward: f_0 to f_1."""
        rng = [self.noise[i].stream("annealed", int(self.drawn[i]) + c) for i in rows for c in range(k)]
        self.drawn[rows] += k
        item = np.repeat(rows, k)
        position = self._normal(rng)
        chains = evaluate(self._log_ratio(item), position)
        elbo_terms = chains.log_ratio if self.settings.start == "posterior" else self._posterior_terms(item, position)
        log_weights = torch.zeros(len(item), dtype=torch.float64, device=self.x.device)
        betas, steps, lengths = self._tables(item)
        for t in range(betas.shape[1] - 1):
            log_weights += increment(betas[:, t + 1] - betas[:, t], chains.log_ratio)
            chains = self._move(chains, item, rng, betas[:, t + 1], steps[:, t + 1], lengths > t + 1)
        shape = (len(rows), k)
        return Draws(log_weights.cpu().numpy().reshape(shape), elbo_terms.cpu().numpy().reshape(shape))

    def backwards(self, exact: Tensor) -> Sampler:
        """Reverse: f_1 to f_0 from the posterior draws ``exact`` (B,D); log-weights of 1 / p(x)."""

        def draw(rows: Rows, k: int) -> Draws:
            rng = [self.noise[i].stream("backwards", int(self.drawn[i]) + c) for i in rows for c in range(k)]
            self.drawn[rows] += k
            item = np.repeat(rows, k)
            chains = evaluate(self._log_ratio(item), exact.to(self.dtype)[torch.from_numpy(item).to(exact.device)])
            log_weights = torch.zeros(len(item), dtype=torch.float64, device=self.x.device)
            betas, steps, lengths = self._tables(item)
            for t in reversed(range(betas.shape[1] - 1)):
                log_weights -= increment(betas[:, t + 1] - betas[:, t], chains.log_ratio)
                chains = self._move(chains, item, rng, betas[:, t], steps[:, t], (lengths > t) & (t > 0))
            values = log_weights.cpu().numpy().reshape(len(rows), k)
            return Draws(values, values)

        return draw

    def _pilot(self, rows: Rows) -> list[Ladder]:
        """Ladders of the items ``rows``: the next temperature is as far as the entropy share permits."""
        s, n = self.settings, self.settings.pilot_chains
        rng = [self.noise[i].stream("pilot", c) for i in rows for c in range(n)]
        item = np.repeat(rows, n)
        chains = evaluate(self._log_ratio(item), self._normal(rng))
        beta = torch.zeros(len(rows), dtype=torch.float64, device=self.x.device)
        step = torch.full_like(beta, min(STEP_RANGE[1], self.model.noise_dim**-0.25))
        wanted = torch.full_like(beta, np.log(max(1.0, n * s.entropy_share)))
        ladders = [Ladder([], []) for _ in rows]
        for t in range(s.most_temperatures):
            active = beta < 1
            if not bool(active.any()):
                break
            ahead = exponent_for_entropy(finite_ratios(chains.log_ratio.view(-1, n)), wanted, 1 - beta)
            ahead = torch.maximum(ahead, (1 - beta) / (s.most_temperatures - t))  # the last one arrives
            beta = torch.where(1 - beta - ahead < 1e-9, torch.ones_like(beta), beta + ahead)
            for ladder, go, b, e in zip(ladders, active.tolist(), beta.tolist(), step.tolist()):
                if go:
                    ladder.betas.append(b)
                    ladder.steps.append(e)
            moving = np.repeat((beta < 1).cpu().numpy(), n)
            accepted = torch.full((len(item),), s.target_acceptance, dtype=torch.float64, device=self.x.device)
            chains = self._move(
                chains, item, rng, beta.repeat_interleave(n), step.repeat_interleave(n), moving, accepted
            )
            missed = accepted.view(-1, n).mean(1) - s.target_acceptance
            step = (step * torch.exp(ADAPTATION * missed)).clamp(*STEP_RANGE)
        return ladders

    def _move(
        self,
        chains: Chains,
        item: Rows,
        rng: list[np.random.Generator],
        beta: Tensor,
        step: Tensor,
        moving: NDArray[np.bool_],
        accepted: Tensor | None = None,
    ) -> Chains:
        """One Hamiltonian transition of the chains that are ``moving``."""
        at = np.flatnonzero(moving)
        if not len(at):
            return chains
        movers = [rng[i] for i in at]
        momentum = self._normal(movers)
        uniform = torch.from_numpy(np.stack([g.random(2) for g in movers])).to(self.x.device)
        index = torch.from_numpy(at).to(self.x.device)
        part = Chains(*(field[index] for field in chains))
        jitter = 1 + JITTER * (2 * uniform[:, 0] - 1)
        moved, probability = transition(
            part,
            self._log_ratio(item[at]),
            beta[index],
            step[index] * jitter,
            self.settings.leapfrog_steps,
            momentum,
            torch.log(uniform[:, 1]),
        )
        if accepted is not None:
            accepted[index] = probability
        return Chains(*(whole.index_copy(0, index, new) for whole, new in zip(chains, moved)))

    def _log_ratio(self, item: Rows) -> LogRatio:
        """l(e) for chains that belong to the items ``item``."""
        x, *context = repeat([self.x, *self.context], item, 1)
        if self.settings.start == "posterior":
            return lambda e: self.model.log_weight(x, context, e).total
        return lambda e: self.model.log_likelihood_under_prior(x, e)

    @torch.no_grad()
    def _posterior_terms(self, item: Rows, position: Tensor) -> Tensor:
        x, *context = repeat([self.x, *self.context], item, 1)
        return self.model.log_weight(x, context, position).total.double()

    def _normal(self, rng: list[np.random.Generator]) -> Tensor:
        draws = np.stack([g.standard_normal(self.model.noise_dim, np.float32) for g in rng])
        return torch.from_numpy(draws).to(self.x.device, self.dtype)

    def _tables(self, item: Rows) -> tuple[Tensor, Tensor, Rows]:
        """Padded temperatures (B, T + 1), step sizes (B, T + 1) and ladder lengths (B,) of each chain."""
        ladders = [self.ladders[i] for i in item]
        lengths = np.array([len(ladder.betas) for ladder in ladders])
        width = int(lengths.max())
        betas = np.array([[0.0, *x.betas, *[1.0] * (width - len(x.betas))] for x in ladders])
        steps = np.array([[0.0, *x.steps, *[0.0] * (width - len(x.steps))] for x in ladders])
        return torch.from_numpy(betas).to(self.x.device), torch.from_numpy(steps).to(self.x.device), lengths


def increment(ahead: Tensor, log_ratio: Tensor) -> Tensor:
    """(b_t - b_{t-1}) * l(e): nothing on the padding of a shorter ladder, even where l is -inf."""
    return torch.where(ahead > 0, ahead * log_ratio, 0.0)


def finite_ratios(log_ratio: Tensor) -> Tensor:
    """(B,n) with what is not finite replaced by the row's smallest finite value: a pilot chain at an impossible
    place must not hold up the ladder."""
    finite = torch.isfinite(log_ratio)
    smallest = torch.where(finite, log_ratio, torch.inf).amin(1, keepdim=True)
    return torch.where(finite, log_ratio, torch.where(torch.isfinite(smallest), smallest, 0.0))
