"""A process that has process groups ends without taking the interpreter apart; everything that was promised comes first."""

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, logging, os, sys, threading, time, types
from guiderail.rl.runs.ending import end_at_once

torch = types.ModuleType("torch")
torch.distributed = types.SimpleNamespace(is_initialized=lambda: {groups})

class LetsGoLate:
    def __del__(self, abort=os.abort):
        abort()  # as a thread of gloo does

def command():
    global late
    late = LetsGoLate()
    sys.modules["torch"] = torch
    atexit.register(print, "atexit")
    threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
    logging.getLogger().addHandler(logging.StreamHandler(sys.stdout))
    print("done", flush=False)
    {end}

end_at_once(command)
"""


def ended(groups: bool, end: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(groups=groups, end=end)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("pass", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('why')", 1, "why"),
        ("raise ValueError('bad')", 1, "ValueError: bad"),
    ],
)
def test_the_exit_code_is_the_commands_and_nothing_is_lost(end, code, said):
    done = ended(True, end)
    assert (done.returncode, done.stdout) == (code, "done\nthread\natexit\n")
    assert said in done.stderr


def test_a_process_without_groups_ends_as_usual():
    assert ended(False, "pass").returncode < 0, "the object that aborts was destroyed"
