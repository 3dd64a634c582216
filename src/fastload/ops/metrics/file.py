"""The file that a scraper reads: the last word on each model, replaced as a whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._store.filesystem import translate_write
from fastload._store.keep.usage import count_kept_bytes
from fastload._store.replacing import write_whole
from fastload._tier import LOCAL
from fastload.ops.metrics.gauges import HELP, samples_of, samples_of_check, samples_of_failure, samples_of_outcome
from fastload.ops.metrics.text import Sample, render

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from fastload._fetch.verify.verification import Verification
    from fastload.report import Report


class MetricsFile:
    """What became of models, until it is written. One without a path takes everything and writes nothing.

    Args:
        path: named ``*.prom`` for node-exporter, which passes over the name that the file has while it is written.
        local: the local tier's root; None where it may not be asked.

    Raises:
        StoreError: it could not be written there; said now, so that it does not cost a load.
    """

    def __init__(self, path: str | None, local: str | None) -> None:
        self._path = path
        self._local = local
        self._samples: dict[str, dict[tuple[str, ...], Sample]] = {}
        if path is not None:
            _check_writable(os.path.dirname(path))

    def tell_done(self, model: str, report: Report | None) -> None:
        """It succeeded; None: there was nothing to do, so what the last time took stays true."""
        self._take(model, samples_of_outcome(model, 0) if report is None else samples_of(model, report))

    def tell_checked(self, model: str, found: Verification) -> None:
        """What is there was proven again."""
        self._take(model, samples_of_check(model, found))

    def tell_failed(self, model: str, error: BaseException, exit_code: int) -> None:
        """It failed, or was ended."""
        self._take(model, samples_of_failure(model, error, exit_code))

    def _take(self, model: str, samples: Iterable[Sample]) -> None:
        of_model = self._samples.setdefault(model, {})
        of_model.update({(sample.name, *sample.labels.values()): sample for sample in samples})

    def keep_only(self, models: Container[str]) -> None:
        """Forget the others: nobody is to be alarmed by what is wanted no more."""
        self._samples = {model: samples for model, samples in self._samples.items() if model in models}

    def write(self) -> None:
        """Replace the file, whole or not at all.

        Raises:
            StoreError: it cannot be written.
        """
        if self._path is None:
            return
        samples = [sample for of_model in self._samples.values() for sample in of_model.values()]
        if self._local is not None and os.path.isdir(self._local):
            samples.append(Sample("fastload_last_store_bytes", count_kept_bytes(self._local), {"tier": str(LOCAL)}))
        write_whole(self._path, render(samples, HELP).encode(), os.path.dirname(self._path))


def _check_writable(folder: str) -> None:
    if not os.path.isdir(folder):
        raise translate_write(folder, FileNotFoundError(2, os.strerror(2)))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise translate_write(folder, PermissionError(13, os.strerror(13)))
