"""An index of small wheels on this machine: what uv finds in place of the world's."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def wheel(index: Path, name: str, version: str, *requires: str, tag: str = "py3-none-any") -> str:
    """Put a wheel with one module into an index; returns its hash as locks have it."""
    index.mkdir(exist_ok=True)
    about = f"{name}-{version}.dist-info"
    said = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    said += [f"Requires-Dist: {each}\n" for each in requires]
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{about}/METADATA": "".join(said),
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{about}/RECORD"))
    path = index / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_in, content in {**files, f"{about}/RECORD": record}.items():
            archive.writestr(zipfile.ZipInfo(name_in), content)
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@contextmanager
def served(index: Path) -> Iterator[str]:
    """Serve the wheels of a directory as an index of packages; yields its address."""

    class Index(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002, ARG002
            return

        def do_GET(self) -> None:
            parts = self.path.strip("/").split("/")
            if parts[0] != "simple":
                super().do_GET()
                return
            wheels = sorted(index.glob(f"{parts[-1].replace('-', '_')}-*.whl"))
            digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels}
            links = [f'<a href="/{p.name}#sha256={of}">{p.name}</a>' for p, of in digests.items()]
            self.send_response(200 if links else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write("".join(links).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Index, directory=str(index)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    thread.join()
    server.server_close()


# a build backend of a project's own, so that nothing is fetched to build it
BACKEND = """\
import os, zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None, editable=False):
    name = "own-1.0-py3-none-any.whl"
    about = "own-1.0.dist-info"
    files = {
        f"{about}/METADATA": "Metadata-Version: 2.1\\nName: own\\nVersion: 1.0\\n" + REQUIRES,
        f"{about}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{about}/entry_points.txt": "[console_scripts]\\nown-command = own:main\\n",
        "own.pth": os.path.join(os.getcwd(), "src") + "\\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{path},,\\n" for path in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(os.path.join(directory, name), "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    os.makedirs("src/own.egg-info", exist_ok=True)
    open("src/own.egg-info/PKG-INFO", "w").close()
    return name

build_editable = build_wheel
"""
OWN = """\
[project]
name = "own"
version = "1.0"
dynamic = ["dependencies"]
[build-system]
requires = []
build-backend = "backend"
backend-path = ["tools"]
"""


def own_package(at: Path, requires: Sequence[str] = ()) -> Path:
    """Make a package of src layout that only its own backend knows the dependencies of."""
    (at / "tools").mkdir(parents=True)
    (at / "src").mkdir()
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    (at / "tools/backend.py").write_text(f"REQUIRES = {needs!r}\n{BACKEND}")
    (at / "pyproject.toml").write_text(OWN)
    (at / "src/own.py").write_text("def main():\n    print('own command ran')\n")
    return at
