"""The Kodak download, from a local server."""

import collections
import http.server
import io
import os
import threading

import pytest
from PIL import Image

import download_kodak

NAMES = [f"kodim{number:02}.png" for number in range(1, 25)]


def png(number):
    """A small PNG of the right size for image `number`."""
    size = (512, 768) if number in (4, 9, 10, 17, 18, 19) else (768, 512)
    buffer = io.BytesIO()
    Image.new("RGB", size, (number, 2 * number, 3 * number)).save(buffer, "png")
    return buffer.getvalue()


IMAGES = {name: png(number) for number, name in enumerate(NAMES, 1)}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(download_kodak, "_PAUSES", (0, 0, 0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    """A server of IMAGES. `faults[name]` lists the faults of the first answers for a file."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = os.path.basename(self.path)
            httpd.requests[name] += 1
            fault = httpd.faults[name].pop(0) if httpd.faults[name] else None
            data = IMAGES[name]
            if isinstance(fault, int):
                self.send_error(fault)
                return
            self.send_response(200)
            if fault != "short answer":
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(
                {"dropped": data[:500], "short answer": data[:-20], "text": b"x" * len(data)}.get(fault, data)
            )

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.faults, httpd.requests = collections.defaultdict(list), collections.Counter()
        httpd.url = f"http://127.0.0.1:{httpd.server_port}"
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield httpd
        httpd.shutdown()


def test_download_survives_faults(call, server, tmp_path):
    server.faults |= {"kodim02.png": ["dropped"], "kodim05.png": [503, "short answer"], "kodim09.png": ["text"]}
    done = call(download_kodak.main, "--output-dir", "data/kodak", "--base-url", server.url)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "data" / "kodak"
    assert sorted(os.listdir(folder)) == NAMES  # No temporary files either.
    assert all((folder / name).read_bytes() == IMAGES[name] for name in NAMES)
    assert {name: n for name, n in server.requests.items() if n > 1} == {
        "kodim02.png": 2,
        "kodim05.png": 3,
        "kodim09.png": 2,
    }

    server.requests.clear()
    (folder / "kodim07.png").write_bytes(IMAGES["kodim07.png"][:-1])
    (folder / "kodim08.png").unlink()
    done = call(download_kodak.main, "--output-dir", "data/kodak", "--base-url", server.url + "/")
    assert done.returncode == 0, done.stderr
    assert dict(server.requests) == {"kodim07.png": 1, "kodim08.png": 1}
    assert all((folder / name).read_bytes() == IMAGES[name] for name in NAMES)


def test_missing_image_is_reported_at_once(command, server, tmp_path):
    server.faults["kodim03.png"] = [404]
    done = command("download_kodak.py", "--output-dir", "kodak", "--base-url", server.url)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"error: {server.url}/kodim03.png: the server answers 404 Not Found"]
    assert sorted(os.listdir(tmp_path / "kodak")) == NAMES[:2]


def test_no_network(call):
    done = call(download_kodak.main, "--output-dir", "kodak", "--base-url", "http://127.0.0.1:1")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "http://127.0.0.1:1/kodim01.png: cannot connect" in line and "check the network" in line


@pytest.mark.parametrize("fault", ["text", "short answer"])
def test_broken_download_is_not_written(call, server, tmp_path, fault):
    server.faults["kodim01.png"] = [fault] * 9
    done = call(download_kodak.main, "--output-dir", tmp_path, "--base-url", server.url)
    assert done.returncode == 1 and server.requests["kodim01.png"] == 4
    assert "kodim01.png: what was downloaded is not a complete PNG" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("data, fault", [(png(4), "not RGB of 768x512"), (png(1)[:-1], "cut short"), (b"", "complete")])
def test_find_fault(data, fault):
    assert fault in download_kodak.find_fault(data, 1)


@pytest.mark.parametrize("args", [[], ["--output-dir", ""], ["--output-dir", "d", "--base-url", "ftp://host/"]])
def test_usage_errors(call, args):
    assert call(download_kodak.main, *args).returncode == 2
