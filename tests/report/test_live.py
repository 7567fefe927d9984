import json
import os
import socket
import threading
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_run import NETWORK

from pixelwise.cli import commands
from pixelwise.config import Config, save_config
from pixelwise.errors import ConfigError
from pixelwise.evaluation.pictures import Picture, save_pictures
from pixelwise.labels import make_classes
from pixelwise.models import create
from pixelwise.report.live_page import live_body
from pixelwise.report.live_run import open_live
from pixelwise.report.live_server import PORT, live_server
from pixelwise.runs.model_folder import ModelCard, save_model
from pixelwise.runs.run_folder import Run
from pixelwise.runs.run_notes import add_note


def row(step, **more):
    return {"step": step, "loss": 2.0 / step, "learning_rate": 1e-3, "seconds": 0.5 * step, "waited": 0.1, **more}


def add_rows(run, *rows):
    with (run / "log.jsonl").open("a") as file:
        file.write("".join(json.dumps(each) + "\n" for each in rows))


@pytest.fixture
def folder(tmp_path):
    """A run of 100 steps that has just begun, in this process."""
    folder = tmp_path / "fields"
    folder.mkdir()
    data = {"images": tmp_path, "labels": tmp_path, "classes": ["<b>wet</b>", "field"]}
    train = {"steps": 100, "evaluate_every": 10}
    save_config(
        Config.model_validate({"data": data, "train": train, "run": {"folder": folder}}), folder / "config.toml"
    )
    add_note(folder, "began", 0, "", "")
    (folder / "lock.holder").write_text(f"process {os.getpid()} on {socket.gethostname()}")
    return folder


def test_only_what_is_new_is_read_and_half_a_line_waits(folder):
    run = open_live(folder)
    add_rows(folder, row(1), row(2))
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 0.5')
    run.refresh()
    assert run.points(1) == [(1, 2.0), (2, 1.0)]
    # What was read is not read again: other bytes in its place change nothing.
    text = (folder / "log.jsonl").read_bytes()
    with (folder / "log.jsonl").open("r+b") as file:
        file.write(b"#" * text.index(b"\n"))
    with (folder / "log.jsonl").open("a") as file:
        file.write(', "learning_rate": 0.1, "seconds": 9}\n')
    run.refresh()
    assert run.points(1) == [(1, 2.0), (2, 1.0), (3, 0.5)]


def test_a_resumed_run_takes_rows_back(folder):
    add_rows(folder, *(row(step) for step in range(1, 8)))
    run = open_live(folder)
    assert run.step == 7
    Run(folder).rewind_log(4)
    add_rows(folder, row(5, mIoU=0.5))
    run.refresh()
    assert [step for step, _ in run.points(1)] == [1, 2, 3, 4, 5]
    assert run.scores("mIoU") == [(5, 0.5)]


def test_the_time_left_is_that_of_the_steps_left_at_the_pace_so_far(folder):
    add_rows(folder, *(row(step) for step in range(1, 41)))
    pace = open_live(folder).pace
    assert pace.step == pytest.approx(0.5)
    assert pace.left == pytest.approx(0.5 * 60)
    assert pace.waited == pytest.approx(0.1 / 0.5)


@pytest.mark.parametrize("code", ["complete", "patience", "callback", "interrupted", "error"])
def test_a_run_that_has_ended_says_how_and_runs_again_once_it_is_resumed(folder, code):
    add_rows(folder, row(1))
    add_note(folder, "ended", 1, code, "for a reason")
    assert open_live(folder).state == code
    add_note(folder, "began", 1, "", "")
    assert open_live(folder).state == "running"


def test_a_killed_run_is_told_from_one_that_runs(folder):
    add_rows(folder, row(1))
    assert open_live(folder).state == "running"
    process = os.spawnlp(os.P_NOWAIT, "true", "true")
    (folder / "lock.holder").write_text(f"process {process} on {socket.gethostname()}")
    if Path("/proc/self/stat").exists():
        # It has ended, and its parent, this process, has not asked how.
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        assert open_live(folder).state == "stopped"
    os.waitpid(process, 0)
    assert open_live(folder).state == "stopped"
    assert "--resume" in live_body(open_live(folder))


def test_a_quiet_run_of_another_machine_counts_as_stopped(folder):
    (folder / "lock.holder").write_text("process 1 on elsewhere")
    add_rows(folder, row(1))
    assert open_live(folder).state == "running"
    for name in ("log.jsonl", "notes.jsonl"):
        os.utime(folder / name, (1e9, 1e9))
    assert open_live(folder).state == "stopped"


def test_a_run_of_an_earlier_version_is_complete_after_its_last_step(folder):
    (folder / "notes.jsonl").unlink()
    add_rows(folder, row(100, mIoU=0.5))
    assert open_live(folder).state == "complete"
    assert "0.500" in live_body(open_live(folder))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not a run"):
        open_live(tmp_path)


class Tags(HTMLParser):
    """Finds addresses that are not data, and texts."""

    def __init__(self, page):
        super().__init__()
        self.outside, self.text, self.ids = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.outside += [given[key] for key in ("src", "href") if not given.get(key, "data:").startswith("data:")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def server(folder):
    add_rows(
        folder, *(row(step) for step in range(1, 11)), row(11, mIoU=0.4, **{"IoU/<b>wet</b>": 0.3, "IoU/field": 0.5})
    )
    with live_server(folder, 0) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def ask(server, path="", **headers):
    with urllib.request.urlopen(urllib.request.Request(server.address + path, headers=headers)) as answer:
        return answer.read().decode(), answer.headers


def test_the_page_needs_nothing_from_outside_and_escapes_names(server):
    page, headers = ask(server)
    tags = Tags(page)
    assert tags.outside == []
    assert "<b>wet</b>" in tags.text
    assert '<th scope="row"><b>wet' not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    nonce = headers["Content-Security-Policy"].split("'nonce-")[1].split("'")[0]
    assert f'<script nonce="{nonce}">' in page
    assert len(tags.ids) == len(set(tags.ids))


def test_every_browser_gets_what_is_new_for_it(server, folder):
    body, headers = ask(server, "body")
    version = headers["X-Version"]
    with pytest.raises(urllib.error.HTTPError) as unchanged:
        ask(server, f"body?version={version}")
    assert unchanged.value.code == 304
    add_rows(folder, row(12))
    for _ in range(2):
        newer, headers = ask(server, f"body?version={version}")
        assert "Step <b>12</b> of 100" in newer
        assert headers["X-Version"] != version
    assert "Step <b>11</b> of 100" in body


def test_a_warning_and_the_samples_come_with_the_next_question(server, folder):
    name, options = NETWORK["name"], NETWORK["options"]
    model = create(name, classes=2, bands=3, **options)
    names = ["<b>wet</b>", "field"]
    card = ModelCard(model.architecture, make_classes(names), (1, 2, 3), "uint8", (0.0,) * 3, (1.0,) * 3)
    save_model(folder / "model", model, card)
    pixels = np.zeros((3, 4, 4), np.uint8)
    truth, prediction = np.zeros((4, 4), np.int16), np.zeros((4, 4), np.uint8)
    prediction[0] = 1
    save_pictures(folder / "samples.npz", [Picture("scene 7", pixels, truth, prediction, None)], [])
    add_note(folder, "warned", 11, "rate-too-high", "The loss has risen.")
    body, _ = ask(server, "body")
    text = Tags(body).text
    assert "scene 7" in text
    assert "25.0\xa0% wrong" in text
    assert "The loss has risen." in text
    assert body.count("data:image/webp") == 4


@pytest.mark.parametrize(("path", "host", "status"), [("../config.toml", None, 404), ("", "evil.example:80", 403)])
def test_nothing_else_is_served_and_to_no_other_site(server, path, host, status):
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(server, path, **({"Host": host} if host else {}))
    assert refused.value.code == status


def test_a_run_that_is_gone_is_an_answer_too(server, folder):
    (folder / "config.toml").unlink()
    with pytest.raises(urllib.error.HTTPError) as gone:
        ask(server, "body")
    assert gone.value.code == 503
    assert "not a run" in gone.value.read().decode()


def test_a_taken_port_is_left_to_its_owner_or_refused_by_name(server, folder):
    taken = server.server_address[1]
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(ConfigError, match=rf"Port {taken} .*--port"):
        live_server(folder, taken)
    with live_server(folder) as first, live_server(folder) as second:
        assert PORT <= first.server_address[1] < second.server_address[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--port", "6010"], "--port goes with --live"), (["--live", "--map", "map.tif"], "Leave --map")],
)
def test_options_that_do_not_go_together_are_refused(folder, options, said):
    result = CliRunner().invoke(commands, ["report", str(folder), *options])
    assert result.exit_code == 2
    assert said in result.output
