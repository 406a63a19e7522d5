"""Transfers that are stopped while the server is silent."""

import ipaddress
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from functools import partial

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kinto_attachment.errors import CommandFailed
from kinto_attachment.finding import Finding
from kinto_attachment.transfer.download import download
from kinto_attachment.transfer.paths import PART
from kinto_attachment.transfer.pool import work
from kinto_attachment.transfer.upload import upload
from tests.support.servers.proxy import is_file
from tests.support.transfers import AUTH, CONTENT, Told, files_in, kinds


class TestStopping:
    @pytest.mark.parametrize("how", ["close", "interrupt"])
    def test_download(self, hostile, record, tmp_path, how):
        """A silent server does not delay the end; the next run goes on where this one stopped."""
        for name in ("r1", "r2", "r3", "r4"):
            record.url = f"{record.collection}/records/{name}/attachment"
            record.upload(name.encode() if name == "r1" else CONTENT, filename=name)
        silent, over = threading.Event(), threading.Event()

        def misbehave(handler, answer):
            if answer is not None and is_file(handler) and "/r1/" not in handler.path:
                handler.answer(200, answer.headers, answer.content[:1_000_000], len(CONTENT))
                silent.set()
                over.wait(30)
                return True

        with hostile(misbehave) as (proxy, client):
            found = download(client, tmp_path)
            assert next(found).key == "r1"
            assert silent.wait(10)
            time.sleep(0.5)
            start = time.monotonic()
            if how == "close":
                found.close()
            else:
                with pytest.raises(KeyboardInterrupt):
                    found.throw(KeyboardInterrupt())
            assert time.monotonic() - start < 2
            assert not [t for t in threading.enumerate() if t.name.startswith("transfer")]
            over.set()
            proxy.misbehave = lambda handler, answer: False
            names = sorted(os.listdir(tmp_path))
            assert names == ["r1"] + [name + PART for name in ("r2", "r3", "r4")]
            told = Told()
            assert kinds(download(client, tmp_path, progress=told)) == {
                "unchanged": 1,
                "downloaded": 3,
            }
            assert sum(told.bytes) <= 3 * (len(CONTENT) - 1_000_000)
            assert {name: files_in(tmp_path)[name] for name in ("r2", "r3", "r4")} == dict.fromkeys(
                ("r2", "r3", "r4"), CONTENT
            )

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_upload(self, record, hostile, tmp_path, request, monkeypatch, scheme):
        """Ctrl-C, while one upload waits for an answer and others for room to send."""
        for name in "abcd":
            (tmp_path / name).write_bytes(CONTENT * 5 if name > "a" else b"a")
        certificate = request.getfixturevalue("certificate") if scheme == "https" else None
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate or ""))
        silent, over = threading.Event(), threading.Event()

        def misbehave(handler, answer):
            is_sent = is_file(handler, "POST") or handler.command == "PATCH"
            if answer is None and is_sent and not over.is_set():
                silent.set()
                over.wait(30)
                return True

        paths = [str(tmp_path / name) for name in "abcd"]
        with hostile(misbehave, certificate) as (proxy, client):
            _, _, bucket, _, collection = client.collection_uri.split("/")
            arguments = json.dumps([[proxy.url, bucket, collection, AUTH], paths])
            process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, arguments], stderr=subprocess.PIPE
            )
            try:
                assert silent.wait(20)
                time.sleep(1)
                start = time.monotonic()
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=5)
                assert time.monotonic() - start < 2
                assert errors.decode().endswith("KeyboardInterrupt\n")
            finally:
                process.kill()
                over.set()
            assert kinds(upload(client, paths)) == {"uploaded": 4}
            assert kinds(download(client, tmp_path / "to")) == {"downloaded": 4}


def test_no_finding_is_lost(client):
    """A job fails that has ended together with others."""
    ended = threading.Semaphore(0)

    def job(name):
        ended.release()
        if name == "0":
            raise CommandFailed("wrong password")
        return Finding("uploaded", name)

    def jobs():
        for number in range(8):
            if number == 7:
                for _ in range(7):
                    assert ended.acquire(timeout=10)
            yield partial(job, str(number))

    found = []
    with pytest.raises(CommandFailed, match="wrong password"):
        for finding in work(client, jobs(), 4):
            found.append(finding.key)
    assert {"1", "2", "3", "4", "5", "6"} <= set(found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("parallel", ["1", "3"])
def test_wherever_the_interrupt_comes(parallel):
    """Python raises ``KeyboardInterrupt`` between any two steps of the main thread. No thread waits
    forever for what another one was about to release."""
    command = [sys.executable, "-c", ANYWHERE, parallel]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "ended each time\n"), done.stderr


# Step after step of the thread that calls ``work()`` is interrupted, until there are none left.
ANYWHERE = """
import inspect, os, sys, threading
from contextlib import closing
from itertools import count
from kinto_attachment.finding import Finding
from kinto_attachment.transfer.client import Client
from kinto_attachment.transfer.pool import work

def jobs():
    for number in range(8):
        yield lambda: Finding("uploaded", "a.png")

def run(step):
    def trace(frame, event, arg):
        # Where a generator yields, Python does not look for signals.
        yields = frame.f_code.co_flags & inspect.CO_GENERATOR
        if event == "line" or (event == "return" and not yields):
            where.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {event}")
            if len(where) == step:
                raise KeyboardInterrupt
        return trace

    client = Client("http://127.0.0.1:9/v1", "b", "c")
    sys.settrace(trace)
    try:
        with closing(work(client, jobs(), int(sys.argv[1]))) as found:
            for finding in found:
                pass
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)

for step in count(1):
    where = []
    caller = threading.Thread(target=run, args=(step,), daemon=True)
    caller.start()
    caller.join(5)
    if caller.is_alive():
        print("interrupted at", where[-1], "and does not end", flush=True)
        os._exit(1)
    left = [each for each in threading.enumerate() if each.name.startswith("transfer")]
    assert not left, where[-1]
    if len(where) < step:
        break
assert step > 40
print("ended each time")
"""

SCRIPT = """
import json, sys
from kinto_attachment.transfer.client import Client
from kinto_attachment.transfer.upload import upload
client, paths = json.loads(sys.argv[1])
list(upload(Client(*client), paths))
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a key and a self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(timezone.utc)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(encoding))
    return path
