"""MobileGym as a world by name: `guiderail evaluate world mobilegym`, and `world.name=mobilegym` in a training config."""

from __future__ import annotations

from dataclasses import dataclass

from guiderail.envs.mobilegym import terms
from guiderail.envs.mobilegym.checkout import Checkout
from guiderail.envs.mobilegym.tasks import MobileGym


@dataclass(frozen=True)
class Named(MobileGym):
    """MobileGym for users who have accepted its terms. checkout "": the one that GUIDERAIL_MOBILEGYM names. It is looked for
    when it is needed, not when the name is found."""

    checkout: str = ""

    def _checked(self) -> Checkout:
        terms.require()
        return super()._checked()


WORLD = Named()
