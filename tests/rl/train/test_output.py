"""Standard output is for results: what libraries say goes to standard error."""

import subprocess
import sys


def test_deepspeed_says_nothing_on_standard_output():
    program = (
        "import guiderail.rl.train.arguments\n"
        "from deepspeed.utils import logger\n"
        "logger.warning('a word of DeepSpeed')\n"
        "print('{}')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "{}\n"
    assert "a word of DeepSpeed" in done.stderr
