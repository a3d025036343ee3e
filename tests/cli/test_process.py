"""The command line as a process of its own: start-up, pipes, terminals, Ctrl-C."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from functools import partial
from importlib.resources import files
from pathlib import Path

MODEL = str(files("subbyte") / "data" / "pydoc-mini")
COMMAND = [sys.executable, "-m", "subbyte"]
# Children find the package where this process found it, installed or not.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(str(files("subbyte"))).parent)}


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from subbyte.cli import app; app(['--help'], standalone_mode=False); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_pipe_gets_plain_text_and_errors_go_to_stderr() -> None:
    good = subprocess.run([*COMMAND, "systems"], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert "gptq" in good.stdout
    assert "\x1b" not in good.stdout + good.stderr
    bad = subprocess.run([*COMMAND, "systems", "gpqt"], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "hint: did you mean 'gptq'?" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_a_terminal_gets_colour() -> None:
    ours, theirs = pty.openpty()
    plain = {key: value for key, value in ENVIRONMENT.items() if key not in ("NO_COLOR", "TERM")}
    subprocess.run([*COMMAND, "systems"], stdout=theirs, env={**plain, "TERM": "xterm-256color"}, check=True)
    os.close(theirs)
    assert b"\x1b[" in os.read(ours, 1 << 16)
    os.close(ours)


def test_ctrl_c_keeps_finished_blocks_and_resume_goes_on(tmp_path: Path) -> None:
    options = ["--system", "awq", "--group-size", "64", "--samples", "2"]
    command = [*COMMAND, "quantize", MODEL, str(tmp_path / "out"), *options]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # Tests that a shell runs in its background inherit that Ctrl-C is ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("block 1 of 4"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "repeat the command with --resume" in rest
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
