"""Android emulators, one per worker: found by their ports or started headless from a copy of an AVD, revived when lost.

    held = lease(EmulatorSpec(avd="Pixel_6", snapshot="clean"), worker=0)
    held.ensure()                        # boots it, or boots it again; loads the snapshot on `reset`
    device = held.device()               # through adb alone;  held.env() is android_env's road (screens over gRPC)

Worker k uses console port `console_port` + 2k, adb port one above, gRPC port `grpc_port` + k. Two emulators cannot share an
AVD, so each worker gets a copy of its folder.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import EnvCrashed, SetupError
from envs.adb import Adb, AdbDevice

HIGHEST_CONSOLE = 5682
"""The last even port at which an adb server recognises an emulator."""


@dataclass(frozen=True)
class EmulatorSpec:
    """What every worker's emulator is like. Picklable.

    avd: name of the AVD to start copies of; None connects to emulators that run already. snapshot: loaded before each task
    ("" for none). copies: where AVD copies are made (None: a temporary folder). boot_seconds: until Android says it has
    booted. restarts: how often a lost emulator is started again in a row, the k-th time after backoff x 2^k seconds.
    """

    avd: str | None = None
    snapshot: str = ""
    adb: str = "adb"
    emulator: str = "emulator"
    sdk: str = ""
    avd_home: str = "~/.android/avd"
    copies: str | None = None
    console_port: int = 5554
    grpc_port: int = 8554
    adb_server_port: int = 5037
    headless: bool = True
    boot_seconds: float = 300.0
    restarts: int = 3
    backoff: float = 5.0
    settle: float = 1.0
    apps: Mapping[str, str] = field(default_factory=dict)


def lease(spec: EmulatorSpec, worker: int = 0) -> Lease:
    """The emulator of one worker. Raises SetupError for ports out of range and for programs that are not there."""
    console = spec.console_port + 2 * worker
    if console % 2 or not 5554 <= console <= HIGHEST_CONSOLE:
        raise SetupError(
            f"worker {worker} would use console port {console}; emulators need an even one from 5554 to "
            f"{HIGHEST_CONSOLE}: give fewer workers or another console port"
        )
    if spec.avd and shutil.which(spec.emulator) is None:
        raise SetupError(f"no emulator at {spec.emulator!r}; run: guiderail doctor")
    return Lease(spec, console, spec.grpc_port + worker)


class Lease:
    """One emulator as long as a worker needs it. Not for several threads."""

    def __init__(
        self, spec: EmulatorSpec, console_port: int, grpc_port: int, sleep: Callable[[float], None] = time.sleep
    ):
        self.spec, self.console_port, self.grpc_port = spec, console_port, grpc_port
        self.serial = f"emulator-{console_port}"
        self.adb = Adb(self.serial, spec.adb, spec.adb_server_port)
        self._sleep = sleep
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    # ------------------------------------------------------------------------------------------------------- life

    def alive(self) -> bool:
        """Whether the emulator answers and Android has booted."""
        if self._process is not None and self._process.poll() is not None:
            return False
        try:
            return self.adb.shell(["getprop", "sys.boot_completed"]).strip() == "1"
        except EnvCrashed:
            return False

    def ensure(self) -> None:
        """Make it run. Raises EnvCrashed when it does not, after all restarts."""
        if self.alive():
            return
        if self.spec.avd is None:
            raise EnvCrashed(f"no emulator answers as {self.serial}")
        trouble = ""
        for attempt in range(self.spec.restarts + 1):
            if attempt:
                self._sleep(self.spec.backoff * 2 ** (attempt - 1))
            try:
                self._start()
                return
            except EnvCrashed as crash:
                trouble = str(crash)
        raise EnvCrashed(f"{self.serial} did not boot in {self.spec.restarts + 1} tries; the last time: {trouble}")

    def _start(self) -> None:
        self._stop()
        home, name = self._copy()
        environment = dict(os.environ) | {
            "ANDROID_AVD_HOME": str(home),
            "ANDROID_ADB_SERVER_PORT": str(self.spec.adb_server_port),
        }
        if self.spec.sdk:
            environment["ANDROID_SDK_ROOT"] = self.spec.sdk
        with (home / f"{name}.log").open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    launch_command(self.spec, name, self.console_port, self.grpc_port),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            except OSError as error:
                raise EnvCrashed(f"cannot start {self.spec.emulator}: {error}") from error
        deadline = time.monotonic() + self.spec.boot_seconds
        while not self.alive():
            code = self._process.poll()
            if code is not None:
                raise EnvCrashed(f"the emulator ended with status {code}: {_last_words(home / f'{name}.log')}")
            if time.monotonic() > deadline:
                raise EnvCrashed(f"not booted after {self.spec.boot_seconds:g} s: {_last_words(home / f'{name}.log')}")
            self._sleep(min(1.0, self.spec.boot_seconds / 20))

    def _copy(self) -> tuple[Path, str]:
        """Home folder and name of this worker's copy of the AVD, made once."""
        name = f"{self.spec.avd}-{self.console_port}"
        if self._folder is None:
            root = Path(self.spec.copies) if self.spec.copies else Path(tempfile.mkdtemp(prefix="guiderail-avd-"))
            copy_avd(Path(self.spec.avd_home).expanduser(), str(self.spec.avd), root, name)
            self._folder = root
        return self._folder, name

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def close(self) -> None:
        """End the emulator if it was started here, and drop its copy."""
        self._stop()
        if self._folder is not None and self.spec.copies is None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None

    # ------------------------------------------------------------------------------------------------------- use

    def reset(self) -> None:
        """Run, and be in the state of the snapshot, if one is named. Raises EnvCrashed."""
        self.ensure()
        if self.spec.snapshot:
            console(self.console_port, f"avd snapshot load {self.spec.snapshot}")
            self.ensure()

    def device(self) -> AdbDevice:
        """The emulator through adb alone."""
        return AdbDevice(self.adb, self.spec.apps, self.spec.settle)

    def env(self) -> Any:
        """android_env's AndroidEnv, connected by ports: touches and screens over gRPC. Wrap it in `AndroidDevice`."""
        from android_env import loader
        from android_env.components import config_classes

        try:
            with tempfile.NamedTemporaryFile("w", suffix=".textproto") as task:
                task.write('id: "open"\nname: "open"\n')
                task.flush()
                return loader.load(android_env_config(config_classes, self, task.name))
        except (RuntimeError, OSError, ValueError) as error:
            raise EnvCrashed(f"android_env cannot reach {self.serial}: {error}") from error


def android_env_config(classes: Any, held: Lease, task: str) -> Any:
    """android_env's configuration for an emulator that runs: with all three ports given it connects and launches none."""
    return classes.AndroidEnvConfig(
        task=classes.FilesystemTaskConfig(path=task),
        simulator=classes.EmulatorConfig(
            emulator_launcher=classes.EmulatorLauncherConfig(
                emulator_console_port=held.console_port, adb_port=held.console_port + 1, grpc_port=held.grpc_port
            ),
            adb_controller=classes.AdbControllerConfig(
                adb_path=shutil.which(held.spec.adb) or held.spec.adb,
                adb_server_port=held.spec.adb_server_port,
                device_name=held.serial,
            ),
        ),
    )


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def console(port: int, command: str, timeout: float = 60.0) -> str:
    """One command at an emulator's console; returns what it says before OK. Raises EnvCrashed on KO or silence.

    `adb emu` would do, but several versions of it print nothing, not even whether it worked. A console that asks for it is
    given the token that the emulator wrote into the home folder.
    """
    if not command.isprintable():
        raise EnvCrashed(f"console command {command!r} is not one line")
    token_file = Path("~/.emulator_console_auth_token").expanduser()
    token = token_file.read_text("utf-8").strip() if token_file.is_file() else ""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as wire, wire.makefile("rwb") as lines:
            _answer(lines)
            for line in ([f"auth {token}"] if token else []) + [command]:
                lines.write(f"{line}\n".encode())
                lines.flush()
                said = _answer(lines)
            return said
    except OSError as error:
        raise EnvCrashed(f"console of emulator-{port}: {error}") from error


def _answer(lines: Iterable[bytes]) -> str:
    said = ""
    for line in lines:
        text = line.decode("utf-8", "replace").strip()
        if text == "OK":
            return said
        if text.startswith("KO"):
            raise EnvCrashed(f"emulator console: {text}")
        said += text + "\n"
    raise EnvCrashed("emulator console: closed without an answer")


def launch_command(spec: EmulatorSpec, avd: str, console_port: int, grpc_port: int) -> list[str]:
    """How the emulator is started: nothing is saved at its end, nothing is drawn that nobody sees."""
    boot = ["-snapshot", spec.snapshot, "-no-snapshot-save"] if spec.snapshot else ["-no-snapshot"]
    quiet = ["-no-audio", "-no-boot-anim", "-no-metrics"]
    window = ["-no-window", "-gpu", "swiftshader_indirect"] if spec.headless else []
    ports = ["-port", str(console_port), "-grpc", str(grpc_port)]
    return [spec.emulator, "-avd", avd, *ports, *boot, *quiet, *window]


def copy_avd(home: Path, avd: str, into: Path, name: str) -> None:
    """Copy HOME/AVD.avd and its AVD.ini as INTO/NAME, without the locks of one that runs. Kept if it is there already.

    Raises SetupError when there is no such AVD.
    """
    ini = home / f"{avd}.ini"
    source = home / f"{avd}.avd"
    if ini.is_file():
        lines = dict(line.split("=", 1) for line in ini.read_text().splitlines() if "=" in line)
        source = Path(lines.get("path", str(source)))
    if Path(avd).name != avd or not source.is_dir():
        raise SetupError(f"no AVD {avd!r} in {home}; see `emulator -list-avds`, or make it with avdmanager")
    target = into / f"{name}.avd"
    if not target.is_dir():
        partial = into / f".{name}.part"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, symlinks=True, ignore=shutil.ignore_patterns("*.lock", "cache.img.qcow2.*"))
        partial.rename(target)
    kept = [line for line in ini.read_text().splitlines() if not line.startswith("path")] if ini.is_file() else []
    (into / f"{name}.ini").write_text("\n".join([*kept, f"path={target}"]) + "\n")
