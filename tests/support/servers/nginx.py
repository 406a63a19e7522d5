"""nginx, with the configuration of this repository."""

import os
import re
import shutil
from pathlib import Path

from tests.support.servers import Process, free_port, is_listening

CONFIGURATION = Path(__file__).parents[3] / "config" / "nginx.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin")

# Folders that a user other than root may write to.
PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """
    :param kinto_port: where Kinto listens.
    :param files: its ``base_path``.
    :param folder: for the configuration, the logs and temporary files.
    :param private: without the location of public files, which the configuration says to remove.
    """

    def __init__(self, kinto_port: int, files: Path, folder: Path, private: bool = False):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        configuration = folder / "nginx.conf"
        text = CONFIGURATION.read_text()
        if private:
            text, count = re.subn(r"(?ms)^ {8}location /files/ \{.*?^ {8}\}\n", "", text)
            assert count == 1
        for ours, theirs in {
            "127.0.0.1:8888": f"127.0.0.1:{kinto_port}",
            "listen 8080": f"listen 127.0.0.1:{self.port}",
            "alias /srv/kinto/files/": f"alias {files}/",
            "worker_processes auto": f"worker_processes 1; daemon off; pid {folder}/nginx.pid",
            "http {": "http {\n    access_log off;\n"
            + "".join(f"    {name}_temp_path {folder}/{name};\n" for name in PATHS),
        }.items():
            assert ours in text
            text = text.replace(ours, theirs)
        if not Path("/etc/nginx/mime.types").exists():
            text = text.replace("include /etc/nginx/mime.types;", "")
        # Run by root, nginx would read files as another user.
        if os.getuid() == 0:
            text = f"user root;\n{text}"
        configuration.write_text(text)
        command = [NGINX, "-c", str(configuration), "-p", str(folder), "-e", f"{folder}/error.log"]
        self._process = Process(command, folder, lambda: is_listening(self.port))
        self.error_log = folder / "error.log"

    def stop(self) -> None:
        self._process.stop()

    def __enter__(self) -> "Nginx":
        return self

    def __exit__(self, *exc_info) -> None:
        self.stop()
