"""What a process forks: signal handlers are reset for a job's children, and for nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")
import django
django.setup()
from jobify_django.current import current
from jobify_django.pool.forking import hook_forks

def note(number, frame): pass

signal.signal(signal.SIGTERM, note)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGINT, note)
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)
hook_forks()
hook_forks()
if sys.argv[1] == "job":
    current.set(object())
pid = os.fork()
names = [getattr(signal.getsignal(n), "__name__", str(signal.getsignal(n)))
         for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]
mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
if pid:
    os.waitpid(pid, 0)
kept = signal.set_wakeup_fd(-1) == writer or (not pid and sys.argv[1] != "job")  # asyncio resets it in some
print("parent" if pid else "child", *names, kept, len(mask), flush=True)
"""
KEPT = "note 1 note True 0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(
    ("who", "child"), [("job", "0 1 default_int_handler False 0"), ("nobody", KEPT)], ids=["job", "nobody"]
)
def test_a_child_has_default_handlers_if_a_job_forks_it(who: str, child: str) -> None:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, who], env=environment, capture_output=True, text=True, check=False
    )
    said = dict(line.split(" ", 1) for line in run.stdout.splitlines())
    names = {"Handlers.SIG_IGN": "1", "Handlers.SIG_DFL": "0"}
    said = {who: " ".join(names.get(word, word) for word in line.split()) for who, line in said.items()}
    assert said == {"parent": KEPT, "child": child}, run.stderr
