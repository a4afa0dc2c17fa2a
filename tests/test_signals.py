"""Signals that end a program."""

from __future__ import annotations

import subprocess
import sys

# Another process sends signals faster than Python answers them, until the program has cleaned up.
MANY = """
import os, signal, time
from tokcodec import signals

signal.signal(signal.SIGTERM, signals.stop_once)
try:
    parent, (begin, go) = os.getpid(), os.pipe()
    if (sender := os.fork()) == 0:
        os.read(begin, 1)
        while os.getppid() == parent:
            os.kill(parent, signal.SIGTERM)
        os._exit(0)
    os.write(go, b"1")
    time.sleep(60)
except SystemExit as stop:
    for _ in range(100_000):  # must not be disturbed
        pass
    os.kill(sender, signal.SIGKILL)
    print("cleaned up", flush=True)
    os._exit(stop.code)
"""

# The exception is lost in a destructor; the signal is sent again.
LOST = """
import os, signal, time
from tokcodec import signals

class Lossy:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

signal.signal(signal.SIGTERM, signals.stop_once)
Lossy()
time.sleep(60)
"""


def run(program: str) -> tuple[int, bytes, bytes]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=50, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_second_signal_does_not_disturb_the_end() -> None:
    assert run(MANY) == (143, b"cleaned up\n", b"")


def test_a_stop_that_a_destructor_swallowed_comes_again() -> None:
    assert run(LOST) == (143, b"", b"")
