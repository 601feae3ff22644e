"""Ctrl-C is heard once, and not in the middle of what has to be finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from fedmem import interrupts
from fedmem.interrupts import delay_interrupts, handle_interrupt, interruptible, leave


@pytest.fixture(autouse=True)
def handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(interrupts, "_received", [-float("inf")])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_second_immediate_ctrl_c_is_ignored_and_a_later_one_not(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGINT, handle_interrupt)
    with pytest.raises(KeyboardInterrupt):
        press()
    press()
    monkeypatch.setattr(interrupts, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_program_that_is_ending_is_left_alone() -> None:
    signal.signal(signal.SIGINT, handle_interrupt)
    with pytest.raises(KeyboardInterrupt):
        press()
    leave()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_error_caused_by_ctrl_c_becomes_ctrl_c_unless_harmless() -> None:
    def hiding(error: Exception) -> None:
        try:
            press()
        except KeyboardInterrupt:
            raise error from None

    with pytest.raises(KeyboardInterrupt), interruptible(LookupError):
        hiding(ImportError("hidden"))
    interrupts._received[-1] = -float("inf")
    with pytest.raises(KeyError), interruptible(LookupError):
        hiding(KeyError("harmless"))
    with pytest.raises(ImportError), interruptible():
        raise ImportError("nobody pressed anything")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_waits_for_the_end_of_what_must_not_be_disturbed() -> None:
    done = []

    def work() -> None:
        with delay_interrupts():
            press()
            press()
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    with delay_interrupts():
        pass


def test_other_threads_and_other_handlers_are_left_alone() -> None:
    found: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with delay_interrupts(), interruptible():
                pass
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not found


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a signal of POSIX")
def test_a_lost_terminal_is_ctrl_c_but_not_under_nohup(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGHUP), signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        interrupts.end_with_terminal()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        passed = []

        def undisturbed() -> None:
            with interrupts.delay_interrupts():
                signal.raise_signal(signal.SIGHUP)
                passed.append(True)

        with pytest.raises(KeyboardInterrupt):
            undisturbed()
        assert passed, "what must not be disturbed is not"
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        interrupts.end_with_terminal()
        signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGINT, before[1])
