"""The official weights: fetched once, checked, or placed by hand."""

import hashlib
import http.server
import re
import threading

import pytest

from fcn_jax.errors import InputError
from fcn_jax.runtime import download as download_module
from fcn_jax.weights import imagenet


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Serves one file, whose name tells the beginning of its checksum; counts what it is asked for."""
    data = bytes(range(256)) * 4

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Range"]))
            start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start : start + 300] if len(asked) == 1 else data[start:])

        def log_message(self, *args):
            pass

    asked: list[tuple[str, str | None]] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download_module, "PAUSES", (0, 0))
    monkeypatch.setattr(imagenet, "SERVER", f"http://127.0.0.1:{server.server_port}")
    digits = hashlib.sha256(data).hexdigest()[:8]
    monkeypatch.setitem(imagenet.FILES, "resnet18", f"resnet18-{digits}.pth")
    yield asked, digits
    server.shutdown()
    server.server_close()
    thread.join()


def test_official_weights_are_fetched_once_and_gone_on_with_after_a_break(server, tmp_path):
    asked, digits = server
    file = imagenet.fetch_weights("resnet18", tmp_path / "cache")
    assert file == tmp_path / "cache" / "weights" / f"resnet18-{digits}.pth"
    assert asked == [(f"/resnet18-{digits}.pth", None), (f"/resnet18-{digits}.pth", "bytes=300-")]
    assert file.read_bytes() == bytes(range(256)) * 4
    assert imagenet.fetch_weights("resnet18", tmp_path / "cache") == file
    assert len(asked) == 2


def test_official_weights_that_are_not_what_their_name_says_are_refused(server, tmp_path, monkeypatch):
    monkeypatch.setitem(imagenet.FILES, "resnet18", "resnet18-00000000.pth")
    with pytest.raises(InputError, match="the rule is 00000000"):
        imagenet.fetch_weights("resnet18", tmp_path / "cache")
    assert not list((tmp_path / "cache" / "weights").glob("*.pth"))


def test_without_a_network_it_is_said_which_file_goes_where(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "SERVER", "https://host.invalid/models")
    place = tmp_path / "weights" / "resnet34-b627a593.pth"
    expected = f"fetch https://host.invalid/models/resnet34-b627a593.pth by other means and save it as {place}"
    with pytest.raises(InputError, match=re.escape(expected)):
        imagenet.fetch_weights("resnet34", tmp_path)
    place.write_bytes(b"placed by hand")
    with pytest.raises(InputError, match="begins with b627a593; delete it"):
        imagenet.fetch_weights("resnet34", tmp_path)
    digits = hashlib.sha256(b"placed by hand").hexdigest()[:8]
    monkeypatch.setitem(imagenet.FILES, "resnet34", f"resnet34-{digits}.pth")
    place = place.rename(place.with_name(f"resnet34-{digits}.pth"))
    assert imagenet.fetch_weights("resnet34", tmp_path) == place


def test_backbones_without_official_weights(tmp_path):
    with pytest.raises(InputError, match="no official ImageNet weights for alexnet"):
        imagenet.fetch_weights("alexnet", tmp_path)


def test_names_hold_the_digits_that_are_checked():
    assert all(re.fullmatch(r"[a-z0-9_]+-[0-9a-f]{8}\.pth", name) for name in imagenet.FILES.values())
