"""Who is let in, and what clients that behave badly are told."""

import json

import pytest
from small_server import error_of, photo, png, serving

from pixelwise.serve.guard import is_open
from pixelwise.serve.options import Folders, Limits, ServeOptions, Work


def answer_of(connection):
    """Return status and body of what a server sends before it closes a connection."""
    content = b""
    while part := connection.recv(65536):
        content += part
    head, _, body = content.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def head(path="/segment", length=100, **more):
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: multipart/form-data; boundary=x"]
    lines += [f"Content-Length: {length}", "Connection: close", *(f"{name}: {value}" for name, value in more.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.fixture(scope="module")
def locked(model, tmp_path_factory):
    limits = Limits(rate=200)
    folders = Folders(tmp_path_factory.mktemp("locked") / "jobs")
    options = ServeOptions(token="secret", limits=limits, folders=folders, work=Work(device="cpu", workers=1))
    with serving(model, options=options) as client:
        yield client


@pytest.mark.parametrize(
    ("shown", "status"), [(None, 401), ("Bearer wrong", 401), ("Basic secret", 401), ("Bearer secret", 200)]
)
def test_a_token_opens_everything_but_the_page(locked, shown, status):
    headers = {} if shown is None else {"Authorization": shown}
    assert locked.ask("GET", "/models", headers=headers).status == status
    assert locked.ask("GET", "/v2/health/live", headers=headers).status == 200
    assert locked.ask("GET", "/", headers=headers).status == 200


def test_each_address_needs_the_token_unless_it_is_named(locked):
    paths = json.loads(locked.ask("GET", "/openapi.json").data)["paths"]
    closed = [path for path in paths if not path.startswith("/v2/health/")]
    assert len(closed) > 15
    assert not any(is_open(path) for path in closed)
    assert not is_open("/docsx")
    assert not is_open("/v2/healthy")


def test_who_tries_many_tokens_has_to_wait(model, tmp_path):
    options = ServeOptions(token="secret", folders=Folders(tmp_path / "jobs"), work=Work(device="cpu", workers=1))
    with serving(model, options=options) as client:
        found = [client.ask("GET", "/models", headers={"Authorization": f"Bearer {i}"}) for i in range(25)]
        assert {answer.status for answer in found[:20]} == {401}
        assert {answer.status for answer in found[20:]} == {429}
        assert 0 < int(found[-1].headers["Retry-After"]) <= 60
        assert client.ask("GET", "/models", headers={"Authorization": "Bearer secret"}).status == 200


def test_more_requests_than_allowed_in_a_minute_are_refused(model, tmp_path):
    limits = Limits(rate=3)
    options = ServeOptions(limits=limits, folders=Folders(tmp_path / "jobs"), work=Work(device="cpu", workers=1))
    with serving(model, options=options) as client:
        assert [client.ask("GET", "/models").status for _ in range(5)] == [200, 200, 200, 429, 429]


def test_a_page_of_another_site_reaches_nothing(served):
    assert served.ask("GET", "/models", headers={"Host": "evil.example"}).status == 403
    sent = {"image": ("a.png", png(photo(0))), "model": "fields"}
    answers = {
        origin: served.ask("POST", "/segment", fields=sent, headers={"Origin": origin}).status
        for origin in ("https://evil.example", f"http://127.0.0.1:{served.port}")
    }
    assert answers == {"https://evil.example": 403, f"http://127.0.0.1:{served.port}": 200}


def test_a_body_above_the_limit_is_refused_with_and_without_its_length(served):
    large = bytes(3 << 20)
    assert served.send("/segment", image=("a.png", large)).status == 413
    answer = served.ask("POST", "/v2/models/fields/infer", body=iter([large[:1000], large]), chunked=True)
    assert answer.status == 413
    assert "error" in answer.json()


def test_half_a_body_is_answered_and_harms_nobody(served):
    # The client says that more will come, and sends nothing.
    waiting = [served.connection(head() + b"--x\r\n") for _ in range(4)]
    assert served.segment(photo(1), model="fields")["width"] == 64
    for connection in waiting:
        status, body = answer_of(connection)
        assert (status, json.loads(body)["error"]["code"]) == (408, "too_slow")
    gone = served.connection(head() + b"--x\r\n")
    gone.close()
    assert served.segment(photo(1), model="fields")["width"] == 64


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", head(length=5) + b"xxxxx", head(length=0), b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000],
)
def test_nonsense_is_answered_as_a_mistake_of_the_client(served, sent):
    status, _ = answer_of(served.connection(sent))
    assert 400 <= status < 500


def test_a_full_queue_says_when_to_come_again(model, tmp_path):
    limits = Limits(queue=1)
    options = ServeOptions(limits=limits, folders=Folders(tmp_path / "jobs"), work=Work(device="cpu", workers=1))
    with serving(model, options=options) as client:
        client.app.service.workers.open = 2
        answer = client.send("/segment", image=("a.png", png(photo(0))))
        assert (answer.status, error_of(answer)["code"]) == (503, "busy")
        assert int(answer.headers["Retry-After"]) >= 1
        client.app.service.workers.open = 0
        assert client.segment(photo(0))["width"] == 64


def test_prometheus_reads_what_was_done(served):
    served.segment(photo(1), model="fields")
    from prometheus_client.parser import text_string_to_metric_families

    text = served.ask("GET", "/metrics").data.decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    done = [s for s in samples if s.name == "pixelwise_requests_total" and s.labels.get("route") == "/segment"]
    assert sum(s.value for s in done if s.labels["status"] == "200") >= 1
    pixels = [s.value for s in samples if s.name == "pixelwise_pixels_total" and s.labels["model"] == "fields"]
    assert sum(pixels) >= 48 * 64
    assert not any("evil" in str(s.labels) for s in samples)
