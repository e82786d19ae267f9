"""GPUs that can be rented: memory, speed and price. The table is data (gpus.json) and a file of one's own may replace or add
rows.

memory: GiB that a program can use. tflops: bfloat16, dense, as published. bandwidth: GB/s of its memory. link: GB/s to another GPU
of the machine, one way. price: dollars an hour, as listed in the month `priced`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guiderail.agent.errors import SetupError
from guiderail.agent.registry import nearest

TABLE = Path(__file__).parent / "gpus.json"
GIB = 2**30
_NUMBERS = ("memory", "tflops", "bandwidth", "link", "price")


@dataclass(frozen=True, slots=True)
class GPU:
    """A row of the table, see above."""

    name: str
    memory: float
    tflops: float
    bandwidth: float
    link: float
    price: float
    priced: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """`nodes` machines of `count` GPUs each."""

    gpu: GPU
    count: int
    nodes: int = 1

    @property
    def world(self) -> int:
        return self.count * self.nodes

    @property
    def name(self) -> str:
        return f"{self.nodes} x {self.count} x {self.gpu.name}" if self.nodes > 1 else f"{self.count} x {self.gpu.name}"

    def cost(self, hours: float) -> float:
        """Dollars."""
        return hours * self.world * self.gpu.price


def gpus(prices: Path | None = None) -> dict[str, GPU]:
    """The table by name. prices: a JSON file with rows, or parts of rows, that replace ours: {"h100-80g": {"price": 2.1,
    "priced": "2027-01"}}. Raises SetupError."""
    rows: dict[str, dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))
    if prices is not None:
        for name, row in _read(prices).items():
            rows[name] = rows.get(name, {}) | row
    return {name: _gpu(name, row, prices or TABLE) for name, row in rows.items()}


def find(name: str, table: dict[str, GPU]) -> GPU:
    """Raises SetupError."""
    if name not in table:
        raise SetupError(
            f"--gpu {name!r}{nearest(name, table)} (known: {', '.join(table)}; add rows with --prices FILE)"
        )
    return table[name]


def _read(file: Path) -> dict[str, dict[str, Any]]:
    example = '{"h100-80g": {"price": 2.1, "priced": "2027-01"}}'
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SetupError(f"--prices {file} cannot be read ({error}); expected JSON such as {example}") from None
    if not isinstance(content, dict) or not all(isinstance(row, dict) for row in content.values()):
        raise SetupError(f"--prices {file}: expected one object per GPU, such as {example}")
    return content


def _gpu(name: str, row: dict[str, Any], file: Path) -> GPU:
    wrong = {
        key: row.get(key)
        for key in _NUMBERS
        if type(row.get(key)) not in (int, float) or not 0 <= row[key] < 1e9 or (key != "price" and row[key] == 0)
    }
    if wrong:
        raise SetupError(
            f"{file}: {name} has {wrong}; a new GPU needs numbers for {', '.join(_NUMBERS)}, all but the price above 0"
        )
    memory, tflops, bandwidth, link, price = (float(row[key]) for key in _NUMBERS)
    return GPU(name, memory, tflops, bandwidth, link, price, str(row.get("priced", "?")), str(row.get("source", "")))
