"""What a benchmark gives back: one comparison of ours with one named peer, and which way its ratio points.

Contract: `ratio` is ours over the peer and above 1 where ours is better, whatever the unit: for times, memory and
growth exponents, of which less is better, the quotient is turned. `UNITS` is the one list of units.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

Better = Literal["less", "more"]

UNITS: dict[str, Better] = {
    "s": "less",  # CPU seconds
    "MiB": "less",
    "tokens": "less",  # read
    "nats": "less",  # of a loss, a token
    "exponent": "less",  # of time in length: 1 is linear, 2 quadratic
    "MB/s": "more",
    "bytes/token": "more",
    "GFLOP/s": "more",
    "tokens/s": "more",
    "tokens/forward": "more",
    "documents/s": "more",
    "pieces/s": "more",
    "rows/s": "more",
    "requests/s": "more",
    "queries/s": "more",
    "samples/s": "more",
}


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one side: their median, least and largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Raises `statistics.StatisticsError` for no values."""
        return cls(median(values), min(values), max(values))

    @classmethod
    def rate(cls, amount: float, seconds: list[float]) -> Spread:
        """`amount` a second; the slowest run is the lowest rate."""
        return cls.of([amount / second for second in seconds])


@dataclass(frozen=True)
class Comparison:
    """Ours beside one peer, on one input, in one run."""

    name: str  # of the benchmark
    what: str  # which of its comparisons
    unit: str
    ours: Spread
    peer: Spread
    peer_name: str
    input: str
    equal: bool | None = None  # the same result as the peer's; None where results are not comparable
    quality_ours: float | None = None
    quality_peer: float | None = None
    quality: str = ""  # what the two qualities are
    notes: dict[str, Any] = field(default_factory=dict)  # series and settings worth keeping

    @property
    def ratio(self) -> float:
        return oriented_ratio(self.ours.median, self.peer.median, self.unit)

    def as_json(self, environment: dict[str, Any]) -> dict[str, Any]:
        """The object that is printed."""
        return {
            "name": self.name,
            "what": self.what,
            "unit": self.unit,
            "ours": self.ours.median,
            "peer": self.peer.median,
            "peer_name": self.peer_name,
            "ratio": self.ratio,
            "equal": self.equal,
            "quality_ours": self.quality_ours,
            "quality_peer": self.quality_peer,
            "quality": self.quality,
            "input": self.input,
            "spread_ours": asdict(self.ours),
            "spread_peer": asdict(self.peer),
            "notes": self.notes,
            "environment": environment,
        }


@dataclass(frozen=True)
class Missing:
    """A comparison that was not made, because its peer is not installed or the device is not here."""

    peer_name: str
    install: str


Found = Comparison | Missing


def oriented_ratio(ours: float, peer: float, unit: str) -> float:
    """Ours over the peer, turned where less is better. Raises KeyError for a unit that is not in `UNITS`."""
    return ours / peer if UNITS[unit] == "more" else peer / ours
