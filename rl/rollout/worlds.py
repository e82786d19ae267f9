"""The live world that a config names."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, fields
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from guiderail.agent.errors import SetupError
from guiderail.agent.registry import nearest
from guiderail.envs.live.attempts import World
from guiderail.envs.live.worlds import WORLDS, NamedWorld


@dataclass(frozen=True, slots=True)
class Known:
    """A world of the package: its class, and the extra and module that its attempts need. unrecorded: why its attempts may
    not become recordings; "" where they may."""

    place: str
    module: str
    extra: str
    unrecorded: str = ""


OURS = {
    "pocket": Known("guiderail.envs.pocket.world:PocketTasks", "android_env", "android"),
    "miniwob": Known("guiderail.envs.miniwob.tasks:WebTasks", "miniwob", "web"),
    "android-world": Known("guiderail.envs.android_world.registered:Named", "android_env", "android"),
    "mobilegym": Known(
        "guiderail.envs.mobilegym.registered:Named",
        "selenium",
        "mobilegym",
        unrecorded="MobileGym's terms say that its content is no training corpus, so its attempts are not recorded for training; "
        "for online RL in it run: guiderail train CONFIG world.name=mobilegym",
    ),
    "android": Known("guiderail.envs.android.tasks:AndroidTasks", "android_env", "android"),
}


def world_of(name: str, options: dict[str, Any]) -> World:
    """The world of that name. options: the fields of its class; a world of the user's own takes none. Raises SetupError."""
    if name not in OURS:
        try:
            WORLDS.check(name)
        except SetupError as error:
            raise SetupError(f"world.name: {error}; those of the package: {', '.join(OURS)}") from None
        if options:
            raise SetupError(f"world.options: {name} is a world of your own, which takes none; remove them")
        return NamedWorld(name)
    module, _, attribute = OURS[name].place.partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    known = [field.name for field in fields(kind)]
    for key in options:
        if key not in known:
            raise SetupError(f"unknown key world.options.{key} of {name}{nearest(key, known)}")
    try:
        return cast(World, TypeAdapter(kind).validate_python(options))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(("world.options", *map(str, first["loc"])))
        raise SetupError(f"{place}: {first['msg']}, got {str(first['input'])[:80]!r}") from None
