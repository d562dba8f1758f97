"""A fitted density as a scikit-learn estimator: outlier detection and sampling for images."""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, DensityMixin, OutlierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from vaedensity.api.estimator_record import (
    EstimatorRecord,
    check_parameters,
    record_in,
    save_with_record,
    whole_number,
)
from vaedensity.api.fit import fit_model, pick_device
from vaedensity.api.fit_request import FitRequest
from vaedensity.api.model_items import ItemLevels, ScoreRequest, estimate_items, levels_of, scoring_model
from vaedensity.api.sample import original_values, sample_batches
from vaedensity.arithmetic import full_precision, torch_threads
from vaedensity.density.estimate import Floats
from vaedensity.density.importance import ImportanceSampling
from vaedensity.errors import Interrupted, ModelError, UsageError
from vaedensity.items import plain_array
from vaedensity.model.checkpoint import ModelFile, load_model, parse_model
from vaedensity.model.config import PRESETS
from vaedensity.model.kinds import Network
from vaedensity.model.released import resolve
from vaedensity.model.sequence_config import SequenceConfig
from vaedensity.units import parse_duration

CALIBRATION_ITEMS = 1000
OPENED = ("_file", "_placed")  # made from the bytes when needed, never pickled


class VAEDensity(OutlierMixin, DensityMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A VAE's density of a collection of equally sized images, as a scikit-learn outlier detector.

    ``X`` is always uint8 or bool, (N,H,W), (N,H,W,C) or (N,C,H,W) with C 1 or 3. Wrong data and parameters raise
    UsageError. With ``steps`` or ``epochs`` a fit on one machine's CPU is a function of the data and the parameters,
    ``threads`` among them; under a budget it also depends on the clock. Scores do not depend on what else is scored,
    nor on the batch, up to the rounding of float32 sums.

    Parameters
    ----------
    preset : str
        The network: "fast", "tiny", "small", "medium" or "base".
    steps, epochs, budget : int, float, float or str, optional
        How long to fit, by at most one of them; the budget in seconds, or text such as "10m". By default the preset's
        time.
    seed : int
        Of fitting, scores and samples.
    device : str
        "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
    valid_fraction : float
        The share of the items that validates the fit.
    batch_size, rate : int and float, optional
        Batch size and peak learning rate of fitting; by default those of ``vaedensity fit``.
    samples : int
        Importance samples an item and score.
    contamination : float
        The share of the training items that lies below the threshold, at most 0.5.
    score_batch_size : int
        Pairs of item and sample in memory at once.
    threads : int, optional
        As many as are worth while by default.

    Attributes
    ----------
    model_bytes_ : bytes
        A model file that every ``vaedensity`` command reads.
    fit_record_ : dict
        What fitting reported.
    item_shape_ : tuple
        (C, H, W).
    n_features_in_ : int
        Values per item.
    offset_ : float
        The threshold in nats.

    Examples
    --------
    >>> import vaedensity as vd
    >>> digits = vd.load_digits()
    >>> detector = vd.VAEDensity.load("digits").calibrate(digits[:20])  # instead of fit(X): a released model
    >>> detector.predict(digits[-2:]).shape, detector.sample(3).shape
    ((2,), (3, 8, 8))
    """

    def __init__(
        self,
        *,
        preset: str = "small",
        steps: int | None = None,
        epochs: float | None = None,
        budget: float | str | None = None,
        seed: int = 0,
        device: str = "auto",
        valid_fraction: float = 0.05,
        batch_size: int | None = None,
        rate: float | None = None,
        samples: int = 64,
        contamination: float = 0.05,
        score_batch_size: int = 256,
        threads: int | None = None,
    ):
        self.preset = preset
        self.steps = steps
        self.epochs = epochs
        self.budget = budget
        self.seed = seed
        self.device = device
        self.valid_fraction = valid_fraction
        self.batch_size = batch_size
        self.rate = rate
        self.samples = samples
        self.contamination = contamination
        self.score_batch_size = score_batch_size
        self.threads = threads

    def fit(self, X: Any, y: Any = None) -> "VAEDensity":
        """Fit a model to images ``X`` and set the threshold; ``y`` is ignored. Returns self.

        KeyboardInterrupt leaves the estimator as it was.
        """
        request = self._request()
        images = plain_array(X, "X")
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            try:
                record = asdict(fit_model(images, "X", path, request))
            except Interrupted:
                raise KeyboardInterrupt("fit was interrupted; nothing was kept") from None
            data = path.read_bytes()
        self._adopt(data, {key: value for key, value in record.items() if not key.startswith("model")})
        return self.calibrate(images)

    @full_precision()
    def calibrate(self, X: Any) -> "VAEDensity":
        """Set the threshold ``offset_``: the ``contamination`` quantile of the scores of ``X``. Returns self.

        At most 1000 evenly spaced items are scored. :meth:`fit` does so with the training data. To be called after
        :meth:`load` of a file without a threshold, or with clean data that were not trained on.
        """
        check_is_fitted(self, "model_bytes_")
        check_parameters(self)
        data = levels_of(self._model_file(), plain_array(X, "X"), "X")
        at = np.linspace(0, len(data.known) - 1, min(len(data.known), CALIBRATION_ITEMS)).round().astype(np.int64)
        scores = self._score_levels(ItemLevels(data.levels[at], data.known[at]))
        if not (finite := np.isfinite(scores)).any():
            raise UsageError("X: no item has a finite score; calibrate with items that the model can make")
        # Without a number of its own an item counts as one of the lowest.
        self.offset_ = float(np.quantile(np.fmax(scores, scores[finite].min()), self.contamination))
        return self

    def _request(self) -> FitRequest:
        check_parameters(self)
        return FitRequest(
            preset=self.preset,
            kind="image",
            steps=None if self.steps is None else int(self.steps),
            epochs=None if self.epochs is None else float(self.epochs),
            seconds=parse_duration(self.budget) if isinstance(self.budget, str) else self.budget,
            device=self.device,
            threads=self._threads(),
            seed=int(self.seed),
            valid_fraction=float(self.valid_fraction),
            batch_size=None if self.batch_size is None else int(self.batch_size),
            rate=None if self.rate is None else float(self.rate),
        )

    @full_precision()
    def score_samples(self, X: Any) -> Floats:
        """log p(x) in nats of every item, a lower bound by importance sampling.

        Returns
        -------
        (n,) float64
            Higher is likelier. -inf for an item with values that the model, fitted to none like them, cannot make.
        """
        check_is_fitted(self, "model_bytes_")
        check_parameters(self)
        return self._score_levels(levels_of(self._model_file(), plain_array(X, "X"), "X"))

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of :meth:`score_samples`, hence -inf where one of them is; ``y`` is ignored."""
        return float(self.score_samples(X).mean())

    def decision_function(self, X: Any) -> Floats:
        """:meth:`score_samples` minus ``offset_``, (n,) float64 in nats: negative for outliers."""
        check_is_fitted(self, "model_bytes_")
        if not hasattr(self, "offset_"):
            raise NotFittedError("this VAEDensity has a model but no threshold; call calibrate(X) first")
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """+1 (n,) int64 for inliers and -1 for outliers; an undefined score is an outlier's."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    @full_precision()
    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> NDArray[np.uint8]:
        """Draw new items.

        Parameters
        ----------
        n_samples : int
        random_state : int or RandomState, optional
            A seed, or what gives one; by default ``seed``, so that calls agree. With one seed the first items are the
            same whatever ``n_samples`` is.

        Returns
        -------
        (n, H, W) or (n, H, W, C) uint8 ndarray
            In the values of the training data.
        """
        check_is_fitted(self, "model_bytes_")
        check_parameters(self)
        if isinstance(random_state, np.random.RandomState):
            seed = int(random_state.randint(2**31 - 1))
        else:
            seed = whole_number("random_state", self.seed if random_state is None else random_state, 0)
        n = whole_number("n_samples", n_samples, 1)
        file, model = self._model_file(), self._network()
        return np.concatenate([original_values(file, part) for part in sample_batches(file, model, n, seed)])

    def _score_levels(self, data: ItemLevels) -> Floats:
        request = ScoreRequest(ImportanceSampling(int(self.samples)), int(self.seed), int(self.score_batch_size))
        # The noise is keyed by the network alone: what is noted in the file's card changes no score.
        with torch_threads(self._threads()):
            parts = estimate_items(self._network(), data, request, model_sha256=self._model_file().sha256)
            return np.concatenate([part.log_prob_nats for part in parts])

    def _threads(self) -> int | None:
        return None if self.threads is None else int(self.threads)

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the model file ``path``, parameters and threshold included; every ``vaedensity`` command reads it."""
        check_is_fitted(self, "model_bytes_")
        check_parameters(self)
        path = Path(path)
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent}: no such folder; make it first")
        record = EstimatorRecord(self.get_params(), getattr(self, "offset_", None), self.fit_record_)
        save_with_record(path, self._model_file(), record, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> "VAEDensity":
        """The estimator that :meth:`save` wrote to ``path``, with the same scores and threshold.

        It opens any model file, and any released model by name. Where no estimator saved it, parameters have their
        defaults, ``fit_record_`` is the model's card, and :meth:`calibrate` must set a threshold before :meth:`predict`
        and :meth:`decision_function` work. Raises ModelError.
        """
        place = resolve(str(path))
        file = load_model(place)
        record = record_in(file)
        if record is None:
            preset = file.card.get("preset")
            record = EstimatorRecord({"preset": preset} if preset in PRESETS else {}, None, dict(file.card))
        estimator = cls(**record.parameters)
        estimator._adopt(place.read_bytes(), record.fit)
        if record.offset is not None:
            estimator.offset_ = record.offset
        return estimator

    def _adopt(self, data: bytes, record: dict[str, Any]) -> None:
        """Become the fitted estimator of the model file ``data``, without a threshold."""
        for name in (*OPENED, "offset_"):
            self.__dict__.pop(name, None)
        self.model_bytes_, self.fit_record_ = data, record
        config = self._model_file().config
        if isinstance(config, SequenceConfig):
            raise ModelError("VAEDensity is for images, found a model of series; use vaedensity.score")
        self.item_shape_, self.n_features_in_ = config.item_shape, config.dims

    def _model_file(self) -> ModelFile:
        if not hasattr(self, "_file"):
            self._file = parse_model(self.model_bytes_, Path("of this VAEDensity"))
        return self._file

    def _network(self) -> Network:
        device = pick_device(self.device)
        if getattr(self, "_placed", (None,))[0] != device:
            self._placed = device, scoring_model(self._model_file(), device)
        return self._placed[1]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key not in OPENED}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.positive_only = True
        tags.non_deterministic = self.steps is None and self.epochs is None
        return tags
