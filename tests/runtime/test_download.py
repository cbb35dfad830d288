"""Downloads from a server that breaks off, resumes, refuses, or gives something else."""

import hashlib
import http.server
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fcn_jax.errors import InputError
from fcn_jax.runtime import download as module
from fcn_jax.runtime.download import download

DATA = bytes(i * i % 251 for i in range(300_000))
SHA256 = hashlib.sha256(DATA).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        seen = self.server.seen
        seen.append((self.path, self.headers["Range"]))
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            return self.end_headers()
        if self.path == "/missing":
            return self.send_error(404)
        if self.path == "/busy" and len(seen) < 3:
            return self.send_error(503)
        asked = self.headers["Range"]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.path != "/plain" else 0
        if start >= len(DATA):
            return self.send_error(416)
        body = DATA[start:]
        self.send_response(206 if start else 200)
        if start and self.path != "/vague":
            self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        self.send_header("Content-Type", "text/html; charset=utf-8" if self.path == "/page" else "application/x-tar")
        if self.path != "/unsized":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path in ("/cut", "/unsized"):
            body = body[:70_000]  # and then the connection closes
        if self.path == "/dead" and start:
            body = b""
        if self.path == "/dead":
            body = body[:110_000]
        self.wfile.write(body)
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "PAUSES", (0, 0))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_whole_file(server, tmp_path, capsys):
    file = download(f"{server.url}/file", tmp_path / "new" / "file", SHA256, len(DATA))
    assert file.read_bytes() == DATA
    assert not list(file.parent.glob("*.part"))
    assert capsys.readouterr().err.splitlines()[-1] == "fetching file: 0 of 0 MB"
    assert download(f"{server.url}/file", file, SHA256) == file
    assert len(server.seen) == 1


@pytest.mark.parametrize("path", ["cut", "unsized"])
def test_connection_cut_more_often_than_there_are_pauses(server, tmp_path, path):
    file = download(f"{server.url}/{path}", tmp_path / "file", SHA256, len(DATA))
    assert file.read_bytes() == DATA
    ranges = [None, "bytes=70000-", "bytes=140000-", "bytes=210000-", "bytes=280000-"]
    assert server.seen == [(f"/{path}", asked) for asked in ranges]


@pytest.mark.parametrize("path", ["file", "plain", "vague"])
def test_goes_on_with_what_is_there(server, tmp_path, path):
    (tmp_path / "file.part").write_bytes(DATA[:1000])
    assert download(f"{server.url}/{path}", tmp_path / "file", SHA256, len(DATA)).read_bytes() == DATA
    # "plain" ignores Range and sends everything; "vague" does not say from where it sends, so it is asked for all.
    assert server.seen == [(f"/{path}", "bytes=1000-"), (f"/{path}", None)][: 1 + (path == "vague")]


def test_part_that_is_whole(server, tmp_path):
    (tmp_path / "file.part").write_bytes(DATA)
    assert download(f"{server.url}/file", tmp_path / "file", SHA256).read_bytes() == DATA


def test_part_that_is_wrong_is_removed(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" + DATA[1:1000])
    with pytest.raises(InputError, match=f"the rule is 300000 bytes and {SHA256}"):
        download(f"{server.url}/file", tmp_path / "file", SHA256, len(DATA))
    assert [f.name for f in tmp_path.iterdir()] == ["file.lock"]
    assert download(f"{server.url}/file", tmp_path / "file", SHA256).read_bytes() == DATA


def test_wrong_checksum(server, tmp_path):
    with pytest.raises(InputError, match=f"300000 bytes and the SHA-256 {SHA256}; the rule is 0{{64}}"):
        download(f"{server.url}/file", tmp_path / "file", "0" * 64)


def test_other_size_is_refused_before_it_is_fetched(server, tmp_path):
    with pytest.raises(InputError, match="has 300000 bytes, and 299999 are expected"):
        download(f"{server.url}/file", tmp_path / "file", SHA256, 299_999)
    assert not (tmp_path / "file.part").exists()


def test_web_page(server, tmp_path):
    with pytest.raises(InputError, match=r"/page gives a web page.* save it as .*/file$"):
        download(f"{server.url}/page", tmp_path / "file", SHA256)


def test_not_found_is_not_tried_again(server, tmp_path):
    with pytest.raises(InputError, match="the server says 404 Not Found"):
        download(f"{server.url}/missing", tmp_path / "file", SHA256)
    assert len(server.seen) == 1


def test_busy_server_is_tried_again(server, tmp_path):
    assert download(f"{server.url}/busy", tmp_path / "file", SHA256).read_bytes() == DATA
    assert len(server.seen) == 3


def test_gives_up_and_keeps_what_came(server, tmp_path):
    with pytest.raises(InputError, match=r"broke after 110000 of 300000 .*0\.1 MB that arrived are in .*file\.part"):
        download(f"{server.url}/dead", tmp_path / "file", SHA256)
    assert (tmp_path / "file.part").read_bytes() == DATA[:110_000]
    assert len(server.seen) == 3  # the first brought something, then one after each pause
    assert download(f"{server.url}/file", tmp_path / "file", SHA256).read_bytes() == DATA
    assert server.seen[-1] == ("/file", "bytes=110000-")


def test_a_file_is_fetched_once_for_all_who_ask(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        fetched = list(pool.map(lambda _: download(f"{server.url}/file", tmp_path / "file", SHA256), range(4)))
    assert fetched == [tmp_path / "file"] * 4
    assert len(server.seen) == 1


def test_nobody_listens(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "PAUSES", (0, 0))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(InputError, match=r"cannot be fetched: .*refused"):
            download(f"http://127.0.0.1:{unused.getsockname()[1]}/file", tmp_path / "file", SHA256)


def test_no_network(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(InputError, match=r"cannot be reached \(.*Name or service not known"):
        download("https://example.invalid/file", tmp_path / "file", SHA256)


@pytest.mark.parametrize("url", ["http://example.org/a", "ftp://example.org/a", "file:///etc/passwd", "/etc/passwd"])
def test_what_others_can_change_on_the_way_is_refused(tmp_path, url):
    with pytest.raises(InputError, match=f"{url} is not fetched, because it is not https"):
        download(url, tmp_path / "file", SHA256)
    assert not any(tmp_path.iterdir())


def test_only_redirections_to_https_are_followed(server, tmp_path):
    with pytest.raises(InputError, match=r"http://example\.org/a is not fetched, because"):
        download(f"{server.url}/to/http://example.org/a", tmp_path / "file", SHA256)
    with pytest.raises(InputError, match="cannot be fetched: the server says 302"):
        download(f"{server.url}/to/file:///etc/passwd", tmp_path / "file", SHA256)
    # This machine is as safe as https.
    assert download(f"{server.url}/to/{server.url}/file", tmp_path / "file", SHA256).read_bytes() == DATA


@pytest.mark.parametrize("sha256", ["", "1234567", SHA256 + "0", "g" * 64])
def test_a_checksum_is_needed(tmp_path, sha256):
    with pytest.raises(ValueError, match="must be 8 to 64 hexadecimal digits"):
        download("https://example.invalid/file", tmp_path / "file", sha256)


def test_server_that_goes_on_elsewhere_on_the_last_try(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSES", ())
    (tmp_path / "file.part").write_bytes(DATA[:1000])
    with pytest.raises(InputError, match="the server did not resume"):
        download(f"{server.url}/vague", tmp_path / "file", SHA256)
    assert not (tmp_path / "file.part").exists()


def test_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match=r"taken cannot be written .*--data.cache"):
        download(f"{server.url}/file", tmp_path / "taken" / "file", SHA256)
    (tmp_path / "file.part").mkdir()
    with pytest.raises(InputError, match=r"file\.part cannot be written \(Is a directory"):
        download(f"{server.url}/file", tmp_path / "file", SHA256)
