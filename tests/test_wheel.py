"""What is shipped: one package, complete, that imports beside a user's own folders of the same names, and without torch."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("agent", "envs", "patch", "rl", "launch")
ONLY_IN_A_CLONE = {f"launch/{name}.sh" for name in ("demo", "docs", "setup", "test")}

if not (ROOT / ".git").exists() or shutil.which("git") is None:
    pytest.skip("needs a clone and git", allow_module_level=True)
if util.find_spec("setuptools") is None or int(metadata.version("setuptools").split(".")[0]) < 77:
    pytest.skip("needs setuptools 77 or later", allow_module_level=True)


def source_files() -> list[str]:
    """What a commit of the working tree would hold."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted({name for name in names if name and (ROOT / name).is_file()})


def build(kind: str, source: Path, out: Path) -> Path:
    """Run the build backend in `source`, as pip does, with this environment's setuptools."""
    out.mkdir()
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for name in source_files():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "tree" / name, follow_symlinks=False)
    return build("sdist", folder / "tree", folder / "dist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from the source distribution: what is missing there is missing here."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    return build("wheel", tree, folder / "dist")


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def shipped(names: list[str]) -> Iterator[str]:
    """The sources that belong into the wheel, by their place in it."""
    yield from ("guiderail/__init__.py", "guiderail/py.typed")
    for name in names:
        if name.split("/")[0] in ROOMS and name not in ONLY_IN_A_CLONE:
            yield f"guiderail/{name}"


def test_the_wheel_holds_guiderail_alone_and_all_of_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packaged = [name for name in names if ".dist-info/" not in name]
    assert sorted(packaged) == sorted(shipped(source_files()))
    assert len({name.split("/")[0] for name in names}) == 2  # guiderail/ and its metadata


def test_the_source_distribution_holds_every_file_once(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
    names = [member.name.partition("/")[2] for member in members]
    assert all(member.isfile() for member in members)
    assert len(set(names)) == len(names)
    ours = [name for name in names if name.split("/")[0] in ROOMS]
    assert sorted(f"guiderail/{name}" for name in ours) == sorted(set(shipped(source_files())) - {
        "guiderail/__init__.py",
        "guiderail/py.typed",
    })  # fmt: skip
    assert [name for name in names if name.startswith("guiderail/")] == ["guiderail/__init__.py", "guiderail/py.typed"]


IMPORT_ALL = """
import importlib, json, sys
found = {}
for name in json.load(sys.stdin):
    try:
        found[name] = importlib.import_module(name).__file__
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "guiderail":
            raise
        found[name] = {"missing": error.name}
    except ImportError as error:
        raise ImportError(f"{name}: {error}") from error
print("\\n" + json.dumps(found))
"""


def test_every_module_imports_beside_a_users_own_folders_of_the_same_names(site: Path, tmp_path: Path) -> None:
    for room in (*ROOMS, "tests"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text(f"raise RuntimeError('the user\\'s own {room} was imported')\n")
    modules = [
        ".".join(file.relative_to(site).with_suffix("").parts).removesuffix(".__init__")
        for file in sorted((site / "guiderail").rglob("*.py"))
    ]
    assert len(modules) > 150
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL],
        input=json.dumps(modules),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    missing = {name: place["missing"] for name, place in found.items() if isinstance(place, dict)}
    assert all(util.find_spec(package.partition(".")[0]) is None for package in missing.values()), missing
    places = [Path(place) for place in found.values() if not isinstance(place, dict)]
    assert all(place.is_relative_to(site) for place in places)
    assert len(places) + len(missing) == len(modules)


WITHOUT_EXTRAS = """
import importlib, pkgutil, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in {others}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Refuse())
import guiderail.rl.credit as credit, guiderail.launch.cli as cli
for module in pkgutil.iter_modules(credit.__path__, "guiderail.rl.credit."):
    importlib.import_module(module.name)
cli.main()
"""


@pytest.mark.parametrize("command", [["--version"], ["doctor"], ["gate", "--help"], ["train", "--help"]])
def test_credit_and_the_commands_import_without_any_extra(command: list[str], tmp_path: Path) -> None:
    extras = ["torch", "transformers", "trl", "peft", "deepspeed", "accelerate", "datasets", "tensorboard", "requests"]
    extras += ["android_env", "google_crc32c", "pyarrow", "openai", "jinja2", "matplotlib", "cryptography", "ray"]
    extras += ["starlette", "uvicorn", "websockets", "gymnasium", "miniwob", "selenium", "packaging", "setuptools"]
    code = WITHOUT_EXTRAS.format(others=set(extras))
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
