"""Ctrl-C while a line is printed."""

import signal

import pytest

from kinto_attachment.cli import run


@pytest.fixture(autouse=True)
def handlers():
    signals = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(each, signal.default_int_handler) for each in signals]
    yield
    assert [signal.getsignal(each) for each in signals] == [signal.default_int_handler] * 2
    for each, handler in zip(signals, before, strict=True):
        signal.signal(each, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_waits_until_the_line_is_printed(number):
    printed = False
    with pytest.raises(KeyboardInterrupt), run._uninterrupted():
        signal.raise_signal(number)
        printed = True
    assert printed


def test_does_not_wait_twice():
    """The reader of our output may have stopped reading."""
    with pytest.raises(KeyboardInterrupt), run._uninterrupted():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("not interrupted")


def test_an_error_is_not_hidden():
    with pytest.raises(BrokenPipeError), run._uninterrupted():
        signal.raise_signal(signal.SIGINT)
        raise BrokenPipeError
