"""The processes that resize images: how they start, fail and end."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from PIL import Image

from kinto_attachment.errors import ImageRefused, ImagingMissing, ResizeBusy, WorkerLost
from kinto_attachment.images.formats.header import read_header
from kinto_attachment.images.plan import Output, Size, plan
from kinto_attachment.images.worker import process
from kinto_attachment.images.worker.pool import WorkerPool
from tests.support import images

pytestmark = pytest.mark.skipif(not find_spec("pyvips"), reason="pyvips is not installed")

SMALL = images.usual()["jpeg"]


@pytest.fixture(scope="module")
def slow():
    """Return an image that takes at least half a second to convert to a large AVIF."""
    return images.encode(images.photo(4096, 4096), "PNG", compress_level=1)


def files(data: bytes):
    """Return a file that holds the bytes, and an empty one."""
    file, into = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    file.write(data)
    return file, into


def make(workers: WorkerPool, data: bytes = SMALL, size: str = "100x0", format: str = "webp"):
    """Resize an image; return the header of the result."""
    file, into = files(data)
    with file, into:
        header = read_header(file)
        planned = plan(header.width, header.height, Size.parse(size))
        workers.resize(file, header, planned, Output(format), into)
        return read_header(into)


def in_background(call):
    """Call a function in a thread; return the thread, and a list that receives the exception that
    the function raises, or None when it returns."""
    raised = []

    def run():
        try:
            call()
            raised.append(None)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def children() -> list[psutil.Process]:
    """Return the image workers of this process."""
    return [
        child
        for child in psutil.Process().children()
        if any("images.worker" in word for word in child.cmdline())
    ]


def until(condition, timeout: float = 10) -> None:
    """Wait until a condition holds.

    :param timeout: seconds after which the test fails.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "The condition was not met in time."
        time.sleep(0.01)


@pytest.fixture
def start_pool(request):
    """Return a function that starts a worker pool. Check at the end that no worker is left."""
    before = set(children())
    pools = []

    def start(**options):
        # The machine may be busy with other tests.
        pools.append(WorkerPool(**{"timeout": 60, **options}))
        return pools[-1]

    start.processes = lambda: [child for child in children() if child not in before]
    yield start
    for workers in pools:
        workers.close()
    assert not start.processes()


def test_positions_of_the_files_after_a_resize(start_pool):
    file, into = files(SMALL)
    into.write(b"x" * 100_000)
    header = read_header(file)
    file.seek(17)
    start_pool().resize(file, header, plan(300, 200, Size(30, 0)), Output("gif"), into)
    assert (file.tell(), into.tell()) == (17, 0)
    result = into.read()
    assert len(result) < 100_000 and result[:3] == b"GIF"


def test_one_process_resizes_many_images(start_pool):
    workers = start_pool()
    assert not start_pool.processes()  # The pool starts a worker only when it needs one.
    for _ in range(5):
        assert make(workers).width == 100
    (worker,) = start_pool.processes()
    assert worker.nice() >= 5


def test_no_descriptors_leak(start_pool):
    workers = start_pool()
    make(workers)
    (worker,) = start_pool.processes()
    ours, theirs = psutil.Process().num_fds(), worker.num_fds()
    for _ in range(20):
        make(workers)
        with pytest.raises(ImageRefused):
            make(workers, SMALL[:5000])
    assert psutil.Process().num_fds() <= ours
    assert worker.num_fds() <= theirs
    workers.close()
    assert psutil.Process().num_fds() < ours


def test_the_worker_inherits_no_descriptors_and_no_secrets(start_pool, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with (tmp_path / "private").open("wb") as file:
        os.set_inheritable(file.fileno(), True)
        make(start_pool())
        (worker,) = start_pool.processes()
        assert "AWS_SECRET_ACCESS_KEY" not in worker.environ()
        assert not any(name.path.endswith("private") for name in worker.open_files())


def test_libvips_is_not_loaded_into_the_parent_process():
    script = (
        "import sys; from tests.images import test_image_workers as t\n"
        "from kinto_attachment.images.worker.pool import WorkerPool\n"
        "w = WorkerPool(); assert t.make(w).width == 100; w.close()\n"
        "assert 'pyvips' not in sys.modules and '_libvips' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def test_a_worker_that_is_killed_while_it_works_is_replaced(start_pool, slow):
    workers = start_pool()
    make(workers)
    (worker,) = start_pool.processes()
    thread, raised = in_background(lambda: make(workers, slow, "0x0", "avif"))
    until(lambda: worker.cpu_percent(0.05) > 30)
    worker.send_signal(signal.SIGKILL)
    thread.join(5)
    assert isinstance(raised[0], WorkerLost)
    assert make(workers).width == 100
    assert start_pool.processes() != [worker]


def test_a_worker_that_is_killed_while_idle_is_replaced(start_pool):
    workers = start_pool()
    make(workers)
    (worker,) = start_pool.processes()
    worker.send_signal(signal.SIGKILL)
    until(lambda: worker.status() == psutil.STATUS_ZOMBIE)
    assert make(workers).width == 100  # Another worker resizes it.
    assert worker not in start_pool.processes() and len(start_pool.processes()) == 1


def test_an_image_that_takes_too_long_ends_the_worker(start_pool, slow):
    workers = start_pool()
    make(workers)
    (worker,) = start_pool.processes()
    workers._timeout = 0.2
    started = time.monotonic()
    with pytest.raises(WorkerLost, match="too long"):
        make(workers, slow, "0x0", "avif")
    assert time.monotonic() - started < 1.5
    assert not worker.is_running()
    workers._timeout = 10
    assert make(workers).width == 100


def test_more_requests_than_the_queue_holds_are_refused(start_pool, slow):
    workers = start_pool(queue=1)
    make(workers)
    first, first_raised = in_background(lambda: make(workers, slow, "0x0", "png"))
    until(lambda: not workers._pool()._free)
    second, second_raised = in_background(lambda: make(workers))
    until(lambda: len(workers._pool()._waiting) == 1)
    started = time.monotonic()
    with pytest.raises(ResizeBusy):
        make(workers)
    assert time.monotonic() - started < 0.2
    first.join()
    second.join()
    assert first_raised == second_raised == [None]


def test_a_request_that_waits_too_long_is_refused(start_pool, slow):
    workers = start_pool()
    make(workers)
    first, first_raised = in_background(lambda: make(workers, slow, "0x0", "png"))
    until(lambda: not workers._pool()._free)
    workers._timeout = 0.1
    with pytest.raises(ResizeBusy, match=r"0\.1 seconds"):
        make(workers)
    first.join()
    assert first_raised == [None]


def test_many_threads_share_a_pool(start_pool):
    workers = start_pool(count=2, queue=100)
    started = [in_background(lambda: make(workers)) for _ in range(40)]
    for thread, _ in started:
        thread.join(30)
    assert [raised for _, raised in started] == [[None]] * 40
    assert 1 <= len(start_pool.processes()) <= 2


def test_an_image_that_needs_too_much_memory_is_refused(start_pool):
    """The pool still resizes the next image."""
    image = images.encode(Image.new("RGB", (7000, 7000)), "PNG", compress_level=1)
    workers = start_pool(memory=420 * 1024 * 1024)
    assert make(workers).width == 100
    with pytest.raises((ImageRefused, WorkerLost)):
        make(workers, image, "4096x4096", "avif")
    assert make(workers).width == 100


def test_ctrl_c_does_not_end_a_worker(start_pool):
    workers = start_pool()
    make(workers)
    (worker,) = start_pool.processes()
    worker.send_signal(signal.SIGINT)
    worker.send_signal(signal.SIGTERM)
    assert make(workers).width == 100
    assert start_pool.processes() == [worker]


def test_closing_ends_the_workers(start_pool):
    workers = start_pool()
    make(workers)
    (worker,) = start_pool.processes()
    workers.close()
    assert not worker.is_running()
    assert make(workers).width == 100
    workers.close()
    workers.close()


SERVER = """
import os, sys, time
from tests.images import test_image_workers as t
from kinto_attachment.images.worker.pool import WorkerPool
workers = WorkerPool()
t.make(workers)
print(t.children()[0].pid, flush=True)
if sys.argv[1:] == ["fork"] and os.fork() == 0:
    time.sleep(8)
    os._exit(0)
if sys.argv[1:] == ["busy"]:
    t.make(workers, open(os.environ["SLOW"], "rb").read(), "0x0", "avif")
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["idle", "fork", "busy"])
def test_a_worker_ends_with_its_parent(how, slow, tmp_path):
    (tmp_path / "slow.png").write_bytes(slow)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, how],
        stdout=subprocess.PIPE,
        env={**os.environ, "SLOW": str(tmp_path / "slow.png")},
        cwd=Path(__file__).parents[2],
    )
    with server.stdout:
        worker = psutil.Process(int(server.stdout.readline()))
    if how == "busy":
        until(lambda: worker.cpu_percent(0.05) > 30)
    server.kill()
    server.wait()
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, 1)


def test_child_processes_start_their_own_workers(start_pool):
    """A server may fork after it has loaded the application."""
    workers = start_pool()
    make(workers)
    (worker,) = start_pool.processes()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert make(workers).width == 100
            own = [child.pid for child in children()]
            assert len(own) == 1 and own[0] != worker.pid
            workers.close()
            assert not children()
            status = 0
        finally:
            os._exit(status)
    os.close(reader)
    os.close(writer)
    assert os.waitpid(pid, 0)[1] == 0
    assert make(workers).width == 100
    assert start_pool.processes() == [worker]


def test_a_fork_while_an_image_is_made(start_pool, slow):
    """The parent and the child both get their image, whatever was locked during the fork."""
    workers = start_pool()
    make(workers)
    thread, raised = in_background(lambda: make(workers, slow, "0x0", "png"))
    until(lambda: not workers._pool()._free)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if make(workers).width == 100 else 1
            workers.close()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    thread.join()
    assert raised == [None]


def test_without_libvips(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImagingMissing, match=r"extra \[images\]"):
        make(WorkerPool())


def test_libvips_that_does_not_load(start_pool, monkeypatch, tmp_path):
    (tmp_path / "pyvips.py").write_text("raise OSError('libvips.so: not there')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImagingMissing, match="not there"):
        make(start_pool())
    assert not start_pool.processes()


def test_the_interpreter_is_found_under_uwsgi(start_pool, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
    path = Path(process.find_interpreter())
    assert path.name.startswith("python")
    assert make(start_pool()).width == 100


def test_no_interpreter(monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    for name in ("prefix", "exec_prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, "/nowhere")
    monkeypatch.setattr(process.shutil, "which", lambda name: None)
    with pytest.raises(ImagingMissing, match="interpreter"):
        process.find_interpreter()


def test_a_worker_that_cannot_start(start_pool, monkeypatch):
    monkeypatch.setattr(
        "kinto_attachment.images.worker.process.find_interpreter", lambda: "/bin/false"
    )
    with pytest.raises(WorkerLost):
        make(start_pool())


def test_workers_end_when_their_pool_is_dropped():
    before = children()
    workers = WorkerPool()
    make(workers)
    (worker,) = [child for child in children() if child not in before]
    del workers
    assert not worker.is_running()


def test_closing_ends_a_busy_worker(start_pool, slow):
    workers = start_pool()
    make(workers)
    thread, raised = in_background(lambda: make(workers, slow, "0x0", "avif"))
    (worker,) = start_pool.processes()
    until(lambda: worker.cpu_percent(0.05) > 30)
    workers.close()
    thread.join(5)
    assert isinstance(raised[0], WorkerLost)
    assert not start_pool.processes()


def test_files_without_a_descriptor_are_refused():
    header = read_header(io.BytesIO(SMALL))
    with pytest.raises(io.UnsupportedOperation):
        WorkerPool().resize(
            io.BytesIO(SMALL), header, plan(9, 9, Size(1, 1)), Output("gif"), io.BytesIO()
        )
