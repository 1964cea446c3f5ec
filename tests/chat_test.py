"""`chat` on a terminal: line editing, history, /commands, Ctrl-C stops an answer and no more, Ctrl-D leaves."""

import os
import pty
import re
import select
import time

import pytest

from mini_model_test import MODEL
from programs import TESSERA


class Terminal:
    def __init__(self, home, *arguments):
        pid, self.fd = pty.fork()
        if pid == 0:
            os.execve(TESSERA, [TESSERA, "chat", str(MODEL), *arguments], {**os.environ, "HOME": str(home), "TERM": "dumb"})
        self.pid, self.text = pid, ""

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def wait_for(self, pattern, seconds=60):
        """What came until `pattern` did, and it; later calls see what follows."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text, re.DOTALL)):
            assert time.monotonic() < end and select.select([self.fd], [], [], end - time.monotonic())[0], f"no {pattern!r} in {self.text!r}"
            try:
                self.text += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:  # it has left
                self.text += "\0"
        before, self.text = self.text[: found.end()], self.text[found.end() :]
        return before

    def leave(self):
        """Ctrl-U, Ctrl-D; again when they came too early: libedit shows its prompt before the terminal gives keys singly."""
        for _ in range(10):
            self.type("\x15\x04")
            try:
                return self.wait_for("\0", 2)
            except AssertionError:
                continue
        raise AssertionError("it doesn't leave")

    def status(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def home(tmp_path):
    return tmp_path


def test_commands_answers_and_history(home):
    terminal = Terminal(home, "-n", "8", "--seed", "1")
    terminal.wait_for("> ")
    terminal.type("/help\n")
    assert "/system TEXT" in terminal.wait_for(r"Ctrl-C stops an answer\s+> ")
    terminal.type("/set tokens 5\n/set tokens none\n")
    assert "is no number" in terminal.wait_for(r"is no number.*> ")
    terminal.type("The sea was calm\n")
    terminal.wait_for(r"calm\r\n.+\n.*> ")
    terminal.type("/stats\n")
    assert re.search(r"\d+ tokens of prompt .*, [1-5] of answer", terminal.wait_for(r"of answer in .*> "))
    terminal.type("/route\n")
    terminal.wait_for(r"general.*> ")
    terminal.type("/statz\n")
    terminal.wait_for(r"unknown command /statz.*> ")
    terminal.type("/stax\x7fts\n")  # a character taken back
    terminal.wait_for(r"of answer in .*> ")
    terminal.leave()
    assert terminal.status() == 0
    assert "The\\040sea\\040was\\040calm" in (home / ".tessera_history").read_text()

    again = Terminal(home, "-n", "4")
    again.wait_for("> ")
    again.type("\x10")  # Ctrl-P: the line before, of the session before
    again.wait_for("/stats")
    again.type("\n")
    again.wait_for("> ")
    again.type("/exit\n")
    again.wait_for("\0")
    assert again.status() == 0


def test_ctrl_c_stops_the_answer_only(home):
    terminal = Terminal(home, "-n", "100000", "--temperature", "1", "--seed", "1")  # an answer that fills the context
    terminal.wait_for("> ")
    terminal.type("Once upon a time\n")
    terminal.wait_for(r"time\r\n.{20}")
    terminal.type("\x03")
    terminal.wait_for(r"\[stopped\]\s+> ")
    terminal.type("/stats\n")
    terminal.wait_for(r"of answer in .*> ")
    terminal.type("/exit\n")
    terminal.wait_for("\0")
    assert terminal.status() == 0
