"""Looks like Android's emulator from outside: options, console, adb port. Behind it is a pocket phone."""

import os
import socket
import socketserver
import sys
import threading
import time
from pathlib import Path

from guiderail.envs.pocket.adb.adbd import Adbd
from guiderail.envs.pocket.phone import Phone
from guiderail.envs.pocket.state import new_state


def main(args):
    port = int(args[args.index("-port") + 1])
    home = Path(os.environ["ANDROID_AVD_HOME"])
    avd = home / f"{args[args.index('-avd') + 1]}.avd"
    assert avd.is_dir()
    if (avd / "broken").exists():
        (avd / "broken").unlink()
        sys.exit("no KVM")
    daemon = Adbd(Phone(new_state(0)), port + 1)

    class Console(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"Android Console: type 'help'\r\nOK\r\n")
            for line in self.rfile:
                words = line.decode().split()
                if words[:3] == ["avd", "snapshot", "load"]:
                    known = words[3] == "clean"
                    with daemon.lock:
                        daemon.phone = Phone(new_state(0)) if known else daemon.phone
                    self.wfile.write(b"OK\r\n" if known else b"KO: no such snapshot\r\n")
                elif words == ["avd", "name"]:
                    self.wfile.write(f"{os.environ.get('CALLED', avd.stem)}\r\nOK\r\n".encode())
                elif words == ["quit"]:
                    return

    socketserver.ThreadingTCPServer.allow_reuse_address = True
    console = socketserver.ThreadingTCPServer(("127.0.0.1", port), Console)
    console.daemon_threads = True
    threading.Thread(target=console.serve_forever, daemon=True).start()
    message = f"host:emulator:{port + 1}"
    while True:
        try:
            with socket.create_connection(("127.0.0.1", int(os.environ["ANDROID_ADB_SERVER_PORT"])), timeout=5) as adb:
                adb.sendall(f"{len(message):04x}{message}".encode())
                adb.recv(10)
        except OSError:
            pass
        time.sleep(0.5)


if __name__ == "__main__":
    main(sys.argv[1:])
