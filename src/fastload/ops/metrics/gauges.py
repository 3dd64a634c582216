"""The gauges, and what a report says of each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fastload.errors import IntegrityError
from fastload.ops.metrics.text import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._fetch.verify.verification import Verification
    from fastload.report import Report

HELP = {
    "fastload_last_success": "1 if the last attempt succeeded, 0 if not.",
    "fastload_last_exit_code": "The exit code that the last attempt means; 0 is success.",
    "fastload_last_finished_timestamp_seconds": "When the last attempt ended, in seconds since 1970.",
    "fastload_last_load_seconds": "How long it took, the sum of its stages.",
    "fastload_last_stage_seconds": "How long each stage took; they follow one another.",
    "fastload_last_bytes": "Bytes delivered.",
    "fastload_last_read_bytes": "Bytes read of the tier: to serve, to mend, tried in vain, or there already.",
    "fastload_last_verify_failures": "Blocks that were wrong when they were read, mended ones included.",
    "fastload_last_repaired_blocks": "Blocks that were mended from another tier.",
    "fastload_last_store_bytes": "What fastload keeps on the local tier.",
}


def samples_of(model: str, report: Report) -> Iterator[Sample]:
    """What a load, or a warm that brought something, has to say."""
    yield from samples_of_outcome(model, 0)
    of_model = {"model": model}
    yield Sample("fastload_last_load_seconds", report.seconds, of_model)
    for stage, seconds in report.stages.items():
        yield Sample("fastload_last_stage_seconds", seconds, {**of_model, "stage": stage})
    yield Sample("fastload_last_bytes", report.bytes, of_model)
    for tier, nbytes in report.bytes_by_tier.items():
        yield Sample("fastload_last_read_bytes", nbytes, {**of_model, "tier": tier})
    yield Sample("fastload_last_verify_failures", report.blocks_reread, of_model)
    yield Sample("fastload_last_repaired_blocks", report.blocks_repaired, of_model)


def samples_of_check(model: str, found: Verification) -> Iterator[Sample]:
    """What was there was proven again: what was wrong of it, and is right by now."""
    wrong = len(found.findings) + sum(file.reread for file in found.files)
    yield Sample("fastload_last_verify_failures", wrong, {"model": model})
    yield Sample("fastload_last_repaired_blocks", sum(f.repaired for f in found.findings), {"model": model})


def samples_of_failure(model: str, error: BaseException, exit_code: int) -> Iterator[Sample]:
    """It failed, or was ended."""
    yield from samples_of_outcome(model, exit_code)
    if isinstance(error, IntegrityError):
        yield Sample("fastload_last_verify_failures", max(1, len(error.findings)), {"model": model})


def samples_of_outcome(model: str, exit_code: int) -> Iterator[Sample]:
    """How the last attempt ended."""
    of_model = {"model": model}
    yield Sample("fastload_last_success", float(not exit_code), of_model)
    yield Sample("fastload_last_exit_code", exit_code, of_model)
    yield Sample("fastload_last_finished_timestamp_seconds", time.time(), of_model)
