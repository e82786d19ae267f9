from dataclasses import dataclass, field


@dataclass(frozen=True)
class Observation:
    route: dict = field(default_factory=dict)
    state: dict = field(default_factory=dict)
