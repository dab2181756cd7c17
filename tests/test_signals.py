import signal
import threading

import pytest

from app.signals import heeding_ctrl_c


@pytest.fixture(autouse=True)
def pythons_own_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_one_though_a_library_makes_an_error_of_it():
    with pytest.raises(KeyboardInterrupt), heeding_ctrl_c():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise TypeError("result array type does not match underlying function") from None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_that_came_within_another_context_is_heard_in_both():
    passed = []
    with pytest.raises(KeyboardInterrupt), heeding_ctrl_c():
        try:
            with heeding_ctrl_c():
                try:
                    signal.raise_signal(signal.SIGINT)
                except KeyboardInterrupt:
                    raise TypeError from None
        except Exception:
            passed.append("told as an error, and passed over")
    assert not passed
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_errors_stay_and_other_handlers_too():
    with pytest.raises(ZeroDivisionError), heeding_ctrl_c():
        raise ZeroDivisionError
    came = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    with pytest.raises(ZeroDivisionError), heeding_ctrl_c():
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError
    assert came == [signal.SIGINT]


def test_in_another_thread_nothing_is_heeded():
    done = []
    thread = threading.Thread(target=heeding_ctrl_c()(lambda: done.append(1)))
    thread.start()
    thread.join()
    assert done == [1]
