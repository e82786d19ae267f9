"""How a model family is spoken to: one file per family. `DIALECTS` is the only table of names."""

from agent.dialects.agentcpm import AGENTCPM
from agent.dialects.aguvis import AGUVIS
from agent.dialects.base import Dialect
from agent.dialects.mobile_use import QWEN2_5_VL, QWEN3_VL
from agent.dialects.os_atlas import OS_ATLAS
from agent.dialects.os_genesis import OS_GENESIS
from agent.dialects.qwen import BRIEF, GUIDERAIL
from agent.dialects.ui_tars import UI_TARS, UI_TARS_1_5

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        GUIDERAIL,
        BRIEF,
        QWEN2_5_VL,
        QWEN3_VL,
        UI_TARS,
        UI_TARS_1_5,
        OS_ATLAS,
        OS_GENESIS,
        AGENTCPM,
        AGUVIS,
    )
}

__all__ = ["BRIEF", "DIALECTS", "GUIDERAIL", "Dialect"]
