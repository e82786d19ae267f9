"""A Setting with defaults, for tests of single formulas."""

from guiderail.launch.plan.setting import Setting


def setting(shape, lora=False, frozen=False, **changes):
    known = {
        "adapted": tuple(shape.adapted("all-linear", frozen)) if lora else (),
        "rank": 16,
        "trains_tower": not frozen,
        "stored": 2,
        "computed": 2,
        "autocast": False,
        "zero": None,
        "bucket": 500_000_000,
        "live": 1_000_000_000,
        "checkpointing": True,
        "reference": False,
        "windows": 1,
        "micro": 2,
        "passes": 1,
        "rows": 2,
        "share": True,
    }
    return Setting(**known | changes)
