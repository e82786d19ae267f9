"""How a model family is spoken to: one file per family. `DIALECTS` is the only table of names."""

from dataclasses import replace

from guiderail.agent.dialects.agentcpm import AGENTCPM
from guiderail.agent.dialects.aguvis import AGUVIS
from guiderail.agent.dialects.base import Dialect
from guiderail.agent.dialects.mobile_use import QWEN2_5_VL, QWEN3_VL
from guiderail.agent.dialects.os_atlas import OS_ATLAS
from guiderail.agent.dialects.os_genesis import OS_GENESIS
from guiderail.agent.dialects.qwen import BRIEF, GUIDERAIL
from guiderail.agent.dialects.ui_tars import UI_TARS, UI_TARS_1_5
from guiderail.agent.registry import Registry, function_of, value_of

_OURS = (GUIDERAIL, BRIEF, QWEN2_5_VL, QWEN3_VL, UI_TARS, UI_TARS_1_5, OS_ATLAS, OS_GENESIS, AGENTCPM, AGUVIS)
_CALLS = (("first", 1), ("integrate", 1), ("say", 3), ("read", 2), ("remember", 1), ("compose", 3))


def _accept(name: str, found: object) -> Dialect:
    dialect = value_of(found, Dialect)
    for field, parameters in _CALLS:
        if (function := getattr(dialect, field)) is not None:
            function_of(function, parameters, f"as {field} a function of {parameters} parameters, see Dialect")
    return replace(dialect, name=name)


DIALECTS = Registry("dialect", "guiderail.dialects", {dialect.name: dialect for dialect in _OURS}, _accept)

__all__ = ["BRIEF", "DIALECTS", "GUIDERAIL", "Dialect"]
