"""The rows of a scoring run: kept on disk while it runs, written as one whole file at the end.

Finished batches are in ``OUT.partial``: a line of settings, then one JSON line a batch. A run that is stopped, by
whatever means, leaves this file. The next one goes on behind its last whole line.
"""

import csv
import json
from contextlib import suppress
from dataclasses import dataclass, fields
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vaedensity import units
from vaedensity.data.atomic import atomic_file, refuse_existing
from vaedensity.data.targets import keep_attributes, real_target
from vaedensity.data.tree_names import escaped
from vaedensity.density.estimate import Estimate, Floats, Kind
from vaedensity.errors import UsageError, VaedensityError

SUFFIXES = (".csv", ".jsonl", ".parquet")
ANEW = "start anew with overwrite=True and without resume=True"
ARRAYS = tuple(f.name for f in fields(Estimate) if f.name != "kind")


def partial_path(out: Path) -> Path:
    """The file that keeps finished batches while ``out`` is made."""
    return out.with_name(out.name + ".partial")


@dataclass(frozen=True)
class Output:
    """Where rows go, and what they say beside the scores.

    Attributes
    ----------
    path : Path
        A name ending in .csv, .jsonl or .parquet.
    overwrite, resume : bool
        Replace what is there; go on with an interrupted run.
    names : list of str, optional
        Each item's name, or the file that it is of.
    offsets : list of int, optional
        Where in its file each item begins.
    """

    path: Path
    overwrite: bool = False
    resume: bool = False
    names: list[str] | None = None
    offsets: list[int] | None = None

    def check(self) -> None:
        """Raise UsageError for an output that cannot be written, before the work rather than after it."""
        path, partial = self.path, partial_path(self.path)
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{path}: expected a name ending in {', '.join(SUFFIXES)}")
        if path.suffix.lower() == ".parquet":
            try:
                import pyarrow.parquet  # noqa: F401
            except ImportError:
                raise UsageError(
                    f"{path}: parquet needs pyarrow; pip install 'vaedensity[parquet]', or write .csv or .jsonl"
                ) from None
        refuse_existing(path, self.overwrite)
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent}: no such folder; make it first")
        if partial.exists() and not partial.is_file():
            raise UsageError(f"{partial} is no file, and its name is needed; choose another output")
        if partial.exists() and not (self.resume or self.overwrite):
            raise UsageError(
                f"{partial} holds an interrupted run; go on with resume=True, or pass overwrite=True to start anew"
            )


class RowLog:
    """The estimates of a run so far, on disk after every batch.

    Parameters
    ----------
    out : Path
        What the run is to write; the log is ``OUT.partial``.
    settings : dict
        All that decides the rows, beginning with "model_sha256".
    resume : bool
        Take up the batches that an interrupted run left.

    Raises
    ------
    UsageError
        Where the batches on disk were made with other settings, are something else, or another run is writing them.
    VaedensityError
        Where the log cannot be written.
    """

    def __init__(self, out: Path, settings: dict[str, Any], *, resume: bool):
        self.path = partial_path(out)
        self.estimates: list[Estimate] = []
        self.anomaly: list[Floats] = []
        try:
            self.file: BinaryIO = open(self.path, "a+b")
        except OSError as error:
            raise VaedensityError(f"cannot write {self.path}: {error.strerror or error}") from error
        try:
            _lock(self.file, self.path)
            keep_attributes(real_target(out), self.path)  # what is to be replaced may be private
            whole = self._read(settings) if resume else 0
            self.file.truncate(whole)
        except BaseException:
            self.close()
            raise
        if not whole:
            try:
                self._write(settings)
            except VaedensityError:
                self.remove()
                raise

    def append(self, estimate: Estimate, anomaly: Floats | None) -> None:
        """Keep one more batch and its anomaly scores."""
        self.estimates.append(estimate)
        record: dict[str, Any] = {name: getattr(estimate, name).tolist() for name in ARRAYS}
        record["kind"] = str(estimate.kind)
        if anomaly is not None:
            self.anomaly.append(anomaly)
            record["anomaly"] = anomaly.tolist()
        self._write(record)

    def close(self) -> None:
        """Leave the log on disk."""
        with suppress(OSError):  # a full disk was reported when the row was written
            self.file.close()

    def remove(self) -> None:
        """Delete the log."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _write(self, record: dict[str, Any]) -> None:
        try:
            self.file.write((json.dumps(record) + "\n").encode())
            self.file.flush()
        except OSError as error:
            raise VaedensityError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _read(self, settings: dict[str, Any]) -> int:
        """Take up the batches on disk. Returns how many bytes of the file are whole lines."""
        self.file.seek(0)
        data = self.file.read()
        whole = data.rfind(b"\n") + 1
        if whole == 0 and (not data or data.startswith(b'{"model_sha256')):
            return 0  # stopped before its first line was written
        try:
            head, *batches = [json.loads(line) for line in data[:whole].splitlines()]
            if not isinstance(head, dict):
                raise TypeError
            for batch in batches:
                arrays = {name: np.array(batch[name]) for name in ARRAYS}
                arrays["item_key"] = np.array(batch["item_key"], np.uint64)
                arrays |= {n: a.astype(np.float64) for n, a in arrays.items() if n.endswith(("nats", "ess", "k_hat"))}
                self.estimates.append(Estimate(**arrays, kind=Kind(batch["kind"])))
                if "anomaly" in batch:
                    self.anomaly.append(np.array(batch["anomaly"], np.float64))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f"{self.path}: not the rows of an interrupted run; move it away, or {ANEW}") from None
        if head != settings:
            changed = ", ".join(sorted(k for k in {*head, *settings} if head.get(k) != settings.get(k)))
            raise UsageError(f"{self.path} was begun with other settings ({changed}); use those, or {ANEW}")
        return whole


def table(
    estimate: Estimate,
    dims: int,
    names: list[str] | None,
    anomaly: Floats | None,
    offsets: list[int] | None = None,
) -> dict[str, list[Any]]:
    """The columns of the rows, by name.

    Parameters
    ----------
    estimate : Estimate
        Of n items.
    dims : int
        Values of an item.
    names, offsets : list, optional
        As in :class:`Output`.
    anomaly : (n,) float64, optional
        Anomaly scores in bits.

    Returns
    -------
    dict of str to list
        n values a column: nats, bits and bits/dim, and the diagnostics of :class:`~vaedensity.Estimate`.

    Examples
    --------
    >>> import vaedensity as vd
    >>> columns = table(vd.score("digits", vd.load_digits()[-2:], samples=30), 64, None, None)
    >>> columns["index"], columns["k"], columns["kind"]
    ([0, 1], [30, 30], ['lower bound', 'lower bound'])
    """
    bits = units.nats_to_bits(1.0) * -estimate.log_prob_nats
    columns: dict[str, list[Any]] = {"index": list(range(len(estimate)))}
    if names is not None:
        columns["name"] = [escaped(name) for name in names]
    if offsets is not None:
        columns["offset"] = offsets
    columns |= {
        "log_prob_nats": estimate.log_prob_nats.tolist(),
        "bits": bits.tolist(),
        "bits_per_dim": (bits / dims).tolist(),
        "elbo_nats": estimate.elbo_nats.tolist(),
        "k": estimate.samples.tolist(),
        "ess": estimate.ess.tolist(),
        "k_hat": estimate.k_hat.tolist(),
        "standard_error_nats": estimate.standard_error_nats.tolist(),
        "kind": [str(estimate.kind)] * len(estimate),
        "flag": estimate.flags(),
    }
    if anomaly is not None:
        columns["anomaly"] = anomaly.tolist()
    return columns


def write_table(path: Path, columns: dict[str, list[Any]], *, overwrite: bool) -> None:
    """Write one row per item, in UTF-8 whatever names are (:func:`~vaedensity.data.tree_names.escaped`).

    In .csv NaN is empty and infinities are inf and -inf. JSON knows neither: .jsonl has null, and ``flag`` tells them
    apart. .parquet holds both.

    Parameters
    ----------
    path : Path
        A name ending in .csv, .jsonl or .parquet.
    columns : dict of str to list
        As :func:`table` makes them.
    overwrite : bool
        Replace an existing file.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_table(Path(folder, "x.csv"), {"index": [0, 1], "bits": [2.5, float("nan")]}, overwrite=False)
    ...     Path(folder, "x.csv").read_text().split()
    ['index,bits', '0,2.5', '1,']
    """
    suffix = path.suffix.lower()
    with atomic_file(path, overwrite) as f:
        if suffix == ".csv":
            text = TextIOWrapper(f, encoding="utf-8", newline="", write_through=True)
            writer = csv.writer(text)
            writer.writerow(columns)
            for row in zip(*columns.values()):
                writer.writerow(["" if v != v else v for v in row])
            text.detach()
        elif suffix == ".jsonl":
            for row in zip(*columns.values()):
                f.write((units.json_line(dict(zip(columns, row))) + "\n").encode())
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table(columns), f)


def _lock(f: BinaryIO, path: Path) -> None:
    """Raise UsageError for a file that another run is writing; the lock ends with the process."""
    try:
        import fcntl
    except ImportError:
        return  # not a platform that has it
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{path}: another run is writing it; wait for it or choose another output") from None
    except OSError:
        return  # a file system without locks
