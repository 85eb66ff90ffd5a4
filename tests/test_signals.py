"""Which signals a run handles."""

import faulthandler
import signal
import threading

import pytest

from rl_runner import signals


@pytest.fixture
def _defaults():
    before = {number: signal.signal(number, signal.SIG_DFL) for number in signals.STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_defaults")
def test_those_that_nobody_handles_and_those_of_a_sweep(monkeypatch):
    assert signals.unhandled() == list(signals.STOPPING)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    signal.signal(signal.SIGUSR1, lambda *_: None)  # a cluster's
    assert signals.unhandled() == [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2]
    monkeypatch.setattr(signals, "of_command", {signal.SIGUSR1})
    assert signals.unhandled() == [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]


@pytest.mark.skipif(not signals.STATUS.exists(), reason="only Linux tells which signals are handled in C")
@pytest.mark.usefixtures("_defaults")
def test_a_handler_in_c_stays():
    faulthandler.register(signal.SIGUSR1)
    try:
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL  # Python does not know of it
        assert signal.SIGUSR1 not in signals.unhandled()
    finally:
        faulthandler.unregister(signal.SIGUSR1)
    assert signals.unhandled() == list(signals.STOPPING)


@pytest.mark.usefixtures("_defaults")
def test_a_handler_that_python_could_not_restore_stays(monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGINT else signal.SIG_DFL)
    assert signals.unhandled() == [number for number in signals.STOPPING if number != signal.SIGINT]


def test_outside_the_main_thread_there_are_none():
    found = []
    thread = threading.Thread(target=lambda: found.append(signals.unhandled()))
    thread.start()
    thread.join()
    assert found == [[]]
