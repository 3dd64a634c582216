"""How long a load takes on many GPUs, reckoned from a few rates: the slowest of what overlaps decides.

Pure, and no more than arithmetic: docs/scaling.md has the assumptions, and what of it was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

WAYS = ("each rank alone", "a group per node", "one node reads")
"""Every rank reads what it keeps; each node reads once what its ranks keep; one node reads once, for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What there is. Rates are in bytes a second."""

    model_bytes: int
    gpus: int
    gpus_per_node: int
    shared_rate: float
    """Of the storage, for all nodes together; for disks of the nodes' own, their sum."""
    node_rate: float
    """At most so much from storage to one node: its disks, or its mount."""
    network_rate: float
    """From node to node."""
    exchange_rate: float
    """All that the ranks of one node send each other, together."""
    device_rate: float
    """Host memory to one GPU."""
    kept_fraction: float = 1.0
    """How much of the model comes to each rank: all, or with ``shard=`` a part, about one in as many as ranks.

    Of a tensor that is cut in another dimension than the first one, all comes.
    """

    def __post_init__(self) -> None:
        if any(not float(each).is_integer() or each < 1 for each in (self.model_bytes, self.gpus, self.gpus_per_node)):
            raise UsageError("a site needs a model, GPUs and nodes", "Give each as a whole number, at least 1")
        if not 0 < self.kept_fraction <= 1:
            raise UsageError(f"a rank keeps {self.kept_fraction:g} of the model", "Give more than 0, and 1 at most")
        rates = (self.shared_rate, self.node_rate, self.network_rate, self.exchange_rate, self.device_rate)
        if not all(rate > 0 for rate in rates):  # nor is NaN a rate
            raise UsageError(
                "a rate of 0, or none, lets nothing through", "Give what the thing carries, or a large number"
            )

    @property
    def nodes(self) -> int:
        """How many machines that takes."""
        return -(-self.gpus // self.gpus_per_node)

    @property
    def kept_by_nodes(self) -> float:
        """How much of the model each node keeps, summed over them; the last one may have fewer GPUs."""
        full, rest = divmod(self.gpus, self.gpus_per_node)
        return full * self.kept_by(self.gpus_per_node) + self.kept_by(rest)

    @property
    def ranks_per_node(self) -> int:
        """On the fullest of them."""
        return min(self.gpus, self.gpus_per_node)

    def kept_by(self, ranks: int) -> float:
        """How much of the model so many ranks keep, together."""
        return min(1.0, ranks * self.kept_fraction)


@dataclass(frozen=True, slots=True)
class Estimate:
    """One way to load."""

    way: str
    seconds: float
    limit: str
    """What takes that long: ``storage``, ``node``, ``network``, ``exchange`` or ``device``."""
    storage_bytes: int
    """What leaves storage, for all."""


def estimate(site: Site, way: str) -> Estimate:
    """How long the load takes by ``way``, one of :data:`WAYS`.

    Raises:
        UsageError: there is no such way.
    """
    if way not in WAYS:
        raise UsageError(f"no way {way!r}", f"There are: {', '.join(WAYS)}")
    bounds = dict(_bounds(site, way))
    limit = max(bounds, key=lambda name: bounds[name])
    return Estimate(way, bounds[limit], limit, round(site.model_bytes * _copies(site, way)))


def _copies(site: Site, way: str) -> float:
    """How often the model leaves storage."""
    return {
        WAYS[0]: site.gpus * site.kept_fraction,
        WAYS[1]: site.kept_by_nodes,
        WAYS[2]: site.kept_by(site.gpus),
    }[way]


def _read_by_node(site: Site, way: str) -> float:
    """How much of the model goes from storage to a node that reads."""
    return {
        WAYS[0]: site.ranks_per_node * site.kept_fraction,
        WAYS[1]: site.kept_by(site.ranks_per_node),
        WAYS[2]: site.kept_by(site.gpus),
    }[way]


def _bounds(site: Site, way: str) -> Iterator[tuple[str, float]]:
    """Seconds that each thing needs by itself; all of them overlap."""
    model = site.model_bytes
    yield "storage", model * _copies(site, way) / site.shared_rate
    yield "node", model * _read_by_node(site, way) / site.node_rate
    yield "device", model * site.kept_fraction / site.device_rate
    if way != WAYS[0]:
        # What a rank keeps, but for the part that it reads itself.
        received = model * site.kept_fraction * (site.ranks_per_node - 1)
        yield "exchange", received / site.exchange_rate
    if way == WAYS[2] and site.nodes > 1:
        # Along a chain: each node sends on what those behind it keep, and the first one the most.
        yield "network", model * site.kept_by(site.gpus - site.ranks_per_node) / site.network_rate
