"""Maps the repository's top-level folders into one importable package: `guiderail.agent` is `agent/`, and so on.

Everything else about the package is in pyproject.toml; this mapping cannot be written there. The links in `guiderail/`
serve tools that read the source tree (mypy, editors); a build does not need them.
"""

from setuptools import find_packages, setup

ROOMS = ("agent", "envs", "patch", "rl", "launch")

packages = ["guiderail"]
for room in ROOMS:
    packages += [f"guiderail.{room}", *(f"guiderail.{room}.{found}" for found in find_packages(room))]

setup(packages=packages, package_dir={f"guiderail.{room}": room for room in ROOMS} | {"guiderail": "guiderail"})
