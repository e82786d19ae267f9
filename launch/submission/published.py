"""Numbers other people published, for comparison: UI-S1 (arXiv 2509.11543), tables 2 and 3. Not re-scored here.

Percent. SOP columns are PG and TSR on AndroidControl-Test; AndroidWorld, MiniWob++ and AITW are online success; SS-V2 and
SS-Pro are ScreenSpot; SR is single-step success. A star marks the base model under UI-S1's own prompt.
"""

from __future__ import annotations

SOURCE = "UI-S1, arXiv 2509.11543, tables 2 and 3"
_MULTI = ("PG", "TSR", "AITW-Gen", "AITW-Web", "MiniWob++", "AndroidWorld")
_SINGLE = ("SS-V2", "SS-Pro", "AC-High TM", "AC-High GR", "AC-High SR", "Odyssey TM", "Odyssey GR", "Odyssey SR")
COLUMNS = (*_MULTI, *_SINGLE)

_TABLE_2 = """
Gemini-Pro-1.5 SoM | - - - - - 22.8
Claude Computer Use | - - - - - 27.9
GPT-4o SoM | - - - - - 34.5
OS-Genesis-7B | 7.6 3.0 14.5 7.8 19.8 17.4
OS-Atlas-7B | 14.3 8.6 45.6 17.9 35.2 12.1
Qwen2.5VL-7B | 17.4 9.8 49.0 20.0 54.0 22.0
AgentCPM-GUI-8B | 17.1 10.6 58.6 15.2 37.8 16.4
MobileGUI-7B | - - 65.3 22.7 - 30.0
UI-TARS-7B | 28.1 14.0 64.9 28.1 58.7 33.0
Qwen2.5VL-32B | 17.8 10.2 42.7 24.7 70.1 31.5
Aguvis-72B | - - - - 66.0 26.1
Qwen2.5VL-7B* | 16.8 9.1 50.5 28.8 54.0 14.9
Qwen2.5VL-7B* + SFT | 17.0 9.3 58.9 28.5 46.7 21.7
Qwen2.5VL-7B* + offline RL | 18.3 10.5 54.6 19.8 53.3 15.7
Qwen2.5VL-7B* + semi-online RL | 30.6 16.0 70.2 36.3 57.6 30.4
UI-S1-7B | 32.4 16.3 74.3 40.2 60.9 34.0
"""
_TABLE_3 = """
GPT-4o | 18.3 0.8 66.3 0.0 20.8 34.3 0.0 3.3
Claude Computer Use | 83.0 17.1 63.7 0.0 12.5 60.9 0.0 3.1
SeeClick | 55.1 1.1 82.9 62.9 59.1 71.0 52.4 53.9
OS-Atlas-4B | 71.9 3.7 49.0 49.5 22.8 49.6 34.6 20.3
Qwen2.5VL-3B | 80.9 28.7 47.8 46.5 38.9 37.4 26.5 26.7
UI-R1-3B | 85.4 17.8 57.9 55.7 45.4 52.2 34.5 32.5
GUI-R1-3B | 85.0 28.6 58.0 56.2 46.6 54.8 41.5 41.3
OS-Genesis-7B | - - 65.9 - 44.4 11.7 - 3.6
OS-Atlas-7B | 84.1 18.9 57.4 54.9 29.8 60.4 39.7 27.0
Aguvis-7B | 81.8 22.9 65.6 - 54.2 26.7 - 13.5
GUI-R1-7B | 88.2 31.3 71.6 65.6 51.7 65.5 43.6 38.8
AgentCPM-GUI-8B | - - 77.7 - 69.2 90.8 - 75.0
UI-TARS-7B | 91.6 35.7 83.7 80.5 72.5 94.6 90.1 87.0
Qwen2.5VL-7B* | 89.0 28.7 62.2 72.5 52.7 67.4 56.3 52.4
Qwen2.5VL-7B* + SFT | 90.1 29.6 66.8 74.3 56.1 56.9 61.5 43.2
Qwen2.5VL-7B* + offline RL | 88.4 29.2 69.7 68.2 59.0 62.5 50.2 48.7
Qwen2.5VL-7B* + semi-online RL | 89.7 30.2 77.6 71.3 66.8 74.5 58.9 56.3
UI-S1-7B | 90.1 30.6 79.9 73.4 68.2 76.3 61.7 59.5
"""


def published() -> dict[str, dict[str, float]]:
    """Model -> column -> percent."""
    rows: dict[str, dict[str, float]] = {}
    for table, columns in ((_TABLE_2, _MULTI), (_TABLE_3, _SINGLE)):
        for line in table.strip().splitlines():
            name, _, cells = line.partition(" | ")
            values = zip(columns, cells.split(), strict=True)
            rows.setdefault(name, {}).update({column: float(value) for column, value in values if value != "-"})
    return rows
