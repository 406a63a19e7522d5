"""Which requests may wait for an image, and in which order they get a worker."""

import threading
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinto_attachment.errors import ResizeBusy
from kinto_attachment.images.admission import Admission, Applicant
from kinto_attachment.images.worker.pool import WorkerPool
from tests.images.test_image_workers import until

NAMES = st.sampled_from("abc")


def admitted(admission: Admission, stack: ExitStack, applicants) -> list[Applicant]:
    """Return the applicants that are admitted. They keep their places until the stack is closed."""
    inside = []
    for applicant in applicants:
        try:
            stack.enter_context(admission.admit(applicant))
        except ResizeBusy:
            continue
        inside.append(applicant)
    return inside


@given(
    st.integers(1, 4), st.integers(0, 20), st.lists(st.builds(Applicant, NAMES, NAMES), max_size=60)
)
def test_limits_hold(workers, queue, applicants):
    admission = Admission(workers, queue)
    with ExitStack() as stack:
        inside = admitted(admission, stack, applicants)
        assert len(inside) <= workers + queue
        for name in "abc":
            of_image = [each for each in inside if each.image == name]
            of_client = [each for each in inside if each.client == name]
            assert len(of_image) <= workers + (queue + 1) // 2
            assert len(of_client) <= workers + queue - queue // 4
    with ExitStack() as stack:
        # Every place was given back.
        assert len(admitted(admission, stack, applicants)) == len(inside)


def test_one_image_or_client_leaves_places_to_others():
    admission = Admission(workers=1, queue=6)
    with ExitStack() as stack:
        assert len(admitted(admission, stack, [Applicant("a", "mallory")] * 48)) == 4
        assert admitted(admission, stack, [Applicant("b", "mallory")] * 9)
        assert admitted(admission, stack, [Applicant("c", "alice")])


def test_clients_and_images_take_turns():
    """A client with one request is next, however many requests another client made before."""
    workers, done = WorkerPool(timeout=30), []

    def work(image: str, client: str):
        applicant = Applicant(image, client)
        with workers.borrow(applicant):
            done.append(applicant)

    waiting = [("a", "m"), ("a", "m"), ("b", "m"), ("a", "alice"), ("c", "m")]
    threads = [threading.Thread(target=work, args=each) for each in waiting]
    with workers.borrow(Applicant("a", "m")):
        for number, thread in enumerate(threads, start=1):
            thread.start()
            until(lambda number=number: len(workers._pool()._waiting) == number)
    for thread in threads:
        thread.join(10)
    assert [(each.image, each.client) for each in done] == [
        ("a", "alice"),
        ("b", "m"),
        ("a", "m"),
        ("c", "m"),
        ("a", "m"),
    ]


@pytest.mark.parametrize("queue", [0, 1, 2, 6])
def test_one_client_may_use_all_workers(queue):
    admission = Admission(3, queue)
    with ExitStack() as stack:
        assert len(admitted(admission, stack, [Applicant("a", "m")] * 3)) == 3
