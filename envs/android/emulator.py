"""Android emulators, one per worker: found by their ports, or started from a copy of an AVD; restarted when lost.

    held = lease(EmulatorSpec(avd="Pixel_6", snapshot="clean"), worker=0)
    held.ensure()                        # boots it if it does not run; `reset` loads the snapshot
    device = held.device()               # through adb alone; held.env() goes through android_env (screens over gRPC)

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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guiderail.agent.errors import EnvCrashed, SetupError
from guiderail.envs.android.adb import Adb, AdbDevice
from guiderail.envs.android.avd import OwnedFolder, copy_avd, own_folder

HIGHEST_CONSOLE = 5682
"""The last even port at which an adb server recognises an emulator."""
SNAPSHOT_SECONDS = 60.0
MOST_LINES, LONGEST_LINE = 10_000, 1 << 16
"""Of one answer of an emulator's console."""
PORT_SECONDS = 2.0
"""How long a port may still be in use: an emulator that was just ended needs a moment to let go of its own."""
ELSEWHERE = (
    "end that program, give another --console-port or --grpc-port, or leave --avd out to use emulators that run already"
)


@dataclass(frozen=True)
class EmulatorSpec:
    """How every worker's emulator is started. Picklable.

    avd: name of the AVD to copy and start; None connects to emulators that run already. snapshot: loaded before each task
    ("" for none). copies: folder in which AVD copies are made (None: the system's temporary folder). boot_seconds:
    longest wait until Android reports that it has booted. restarts: how often in a row a lost emulator is started again,
    the k-th time after backoff x 2^k seconds.
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
    """The emulator of one worker. Raises SetupError for ports out of range and for a missing emulator program."""
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
    """One emulator, for as long as a worker needs it. Not for several threads."""

    def __init__(
        self, spec: EmulatorSpec, console_port: int, grpc_port: int, sleep: Callable[[float], None] = time.sleep
    ):
        self.spec, self.console_port, self.grpc_port = spec, console_port, grpc_port
        self.serial = f"emulator-{console_port}"
        self.adb = Adb(self.serial, spec.adb, spec.adb_server_port)
        self._sleep = sleep
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: OwnedFolder | None = None

    # ------------------------------------------------------------------------------------------------------- life

    def alive(self) -> bool:
        """Whether the emulator answers and Android has booted."""
        if self._process is not None and self._process.poll() is not None:
            return False
        try:
            return self.adb.shell(["getprop", "sys.boot_completed"]).strip() == "1"
        except EnvCrashed:
            return False

    def ensure(self) -> bool:
        """Start it if it does not run; returns whether it was started. Raises EnvCrashed when it does not run after all
        restarts, SetupError when another program has its ports."""
        if (self._process is not None or self.spec.avd is None) and self.alive():
            return False
        if self.spec.avd is None:
            raise EnvCrashed(f"no emulator answers as {self.serial}")
        trouble = ""
        for attempt in range(self.spec.restarts + 1):
            if attempt:
                self._sleep(self.spec.backoff * 2 ** (attempt - 1))
            try:
                self._start()
                return True
            except EnvCrashed as crash:
                trouble = str(crash)
        raise EnvCrashed(f"{self.serial} did not boot in {self.spec.restarts + 1} tries; the last time: {trouble}")

    def _start(self) -> None:
        self._stop()
        home, name = self._copy()
        self._refuse_taken_ports()
        environment = dict(os.environ) | {
            "ANDROID_AVD_HOME": str(home.path),
            "ANDROID_ADB_SERVER_PORT": str(self.spec.adb_server_port),
        }
        if self.spec.sdk:
            environment["ANDROID_SDK_ROOT"] = self.spec.sdk
        with (home.path / f"{name}.log").open("ab") as log:
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
        home.started(self._process.pid)
        self._booted(self.spec.boot_seconds, home.path / f"{name}.log")
        with suppress(EnvCrashed):  # a console that does not say its AVD's name proves nothing
            found = console(self.console_port, "avd name").strip()
            if found != name:
                raise SetupError(f"{self.serial} is an emulator of {found}, started by somebody else; {ELSEWHERE}")

    def _booted(self, seconds: float, log: Path | None) -> None:
        """Wait until Android has booted. Raises EnvCrashed, with the last line of the emulator's log."""
        deadline = time.monotonic() + seconds
        while not self.alive():
            said = _last_words(log) if log else "a snapshot was loaded"
            if self._process is not None and self._process.poll() is not None:
                raise EnvCrashed(f"the emulator ended with status {self._process.poll()}: {said}")
            if time.monotonic() > deadline:
                raise EnvCrashed(f"{self.serial} did not boot within {seconds:g} s: {said}")
            self._sleep(min(1.0, seconds / 20))

    def _refuse_taken_ports(self) -> None:
        """An emulator that somebody else runs is never operated in the name of an AVD copy, nor its snapshot loaded."""
        deadline = time.monotonic() + PORT_SECONDS
        for port in (self.console_port, self.console_port + 1, self.grpc_port):
            while _taken(port):
                if time.monotonic() > deadline:
                    raise SetupError(f"port {port}, which the copy of {self.spec.avd} needs, is in use; {ELSEWHERE}")
                time.sleep(0.05)

    def _copy(self) -> tuple[OwnedFolder, str]:
        """Home folder and name of this worker's copy of the AVD, made once."""
        name = f"{self.spec.avd}-{self.console_port}"
        if self._folder is None:
            self._folder = own_folder(Path(self.spec.copies) if self.spec.copies else None)
            try:
                copy_avd(Path(self.spec.avd_home).expanduser(), str(self.spec.avd), self._folder.path, name)
            except SetupError:
                self.close()
                raise
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
        """End the emulator if it was started here, and delete its copy of the AVD."""
        self._stop()
        if self._folder is not None:
            self._folder.close()
        self._folder = None

    # ------------------------------------------------------------------------------------------------------- use

    def reset(self) -> bool:
        """Make sure that it runs and, if a snapshot is named, load it; returns whether connections to what ran before are
        lost. Raises as `ensure`."""
        started = self.ensure()
        if self.spec.snapshot:
            console(self.console_port, f"avd snapshot load {self.spec.snapshot}")
            self._booted(SNAPSHOT_SECONDS, None)
        return started or bool(self.spec.snapshot)

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
    """android_env's configuration for a running emulator: with all three ports given it connects instead of launching one."""
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
    return lines[-1][:300] if lines else "its log is empty"


def console(port: int, command: str, timeout: float = 60.0) -> str:
    """Send one command to an emulator's console. Returns its output before OK. Raises EnvCrashed on KO or no answer.

    `adb emu` would do the same, but several versions of it print nothing, not even whether it worked. The console may ask
    for a token, which the emulator wrote into the home folder.
    """
    if not command.isprintable():
        raise EnvCrashed(f"console command {command!r} is not one line")
    token_file = Path("~/.emulator_console_auth_token").expanduser()
    token = token_file.read_text("utf-8").strip() if token_file.is_file() else ""
    try:
        deadline = time.monotonic() + timeout
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as wire, wire.makefile("rwb") as lines:
            told = _told(wire, lines.readline, deadline)
            _answer(told)
            for line in ([f"auth {token}"] if token else []) + [command]:
                lines.write(f"{line}\n".encode())
                lines.flush()
                said = _answer(told)
            return said
    except OSError as error:
        raise EnvCrashed(f"console of emulator-{port}: {error}") from error


def _told(wire: socket.socket, readline: Callable[[int], bytes], deadline: float) -> Iterator[bytes]:
    """What the console says, line by line. Raises TimeoutError after `deadline`, and EnvCrashed where it says too much."""
    for _ in range(MOST_LINES):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no end of its answer in time")
        wire.settimeout(left)
        line = readline(LONGEST_LINE)
        if not line:
            return
        yield line
    raise EnvCrashed(f"emulator console: more than {MOST_LINES} lines")


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
    """The command that starts the emulator. It saves nothing when it ends, and draws no window unless asked to."""
    boot = ["-snapshot", spec.snapshot, "-no-snapshot-save"] if spec.snapshot else ["-no-snapshot"]
    quiet = ["-no-audio", "-no-boot-anim", "-no-metrics"]
    window = ["-no-window", "-gpu", "swiftshader_indirect"] if spec.headless else []
    ports = ["-port", str(console_port), "-grpc", str(grpc_port)]
    return [spec.emulator, "-avd", avd, *ports, *boot, *quiet, *window]


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
