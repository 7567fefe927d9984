"""The container's files say what is there: extras, options, addresses, files."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from pixelwise.cli import commands
from pixelwise.serve.options import Limits

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
NGINX = (ROOT / "docker" / "nginx.conf").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


def said(instruction):
    """Return what the last of some instructions says, its lines joined."""
    joined = re.sub(r"\\\n", " ", DOCKERFILE)
    return re.findall(rf"^{instruction} +(.*)$", joined, re.MULTILINE)[-1]


def brought(extras):
    """Return the packages of extras, those of other extras that they name too."""
    found = set()
    for line in (line for extra in extras for line in EXTRAS[extra]):
        ours = re.fullmatch(r"pixelwise\[(.*)\]", line)
        found |= brought(ours[1].split(",")) if ours else {re.split(r"[\s\[<>=!~;]", line)[0]}
    return found


def built_extras():
    default = re.search(r"^ARG EXTRAS=(.*)$", DOCKERFILE, re.MULTILINE)
    others = re.findall(r"--build-arg EXTRAS=([\w,]+)", DOCKERFILE)
    return default[1].split(","), [each.split(",") for each in others]


def test_the_image_serves_exported_files_without_torch():
    default, _ = built_extras()
    packages = brought(default)
    assert {"fastapi", "uvicorn", "onnxruntime"} <= packages
    assert "torch" not in packages


def test_the_comment_on_torch_names_extras_that_bring_it():
    _, others = built_extras()
    assert others
    assert all("torch" in brought(extras) for extras in others)


def test_pip_installs_the_extras_with_the_tested_versions():
    assert re.search(r"pip install .*--constraint constraints\.txt \"\.\[\$\{EXTRAS\}\]\"", said("RUN") + DOCKERFILE)


def test_what_is_copied_is_there_and_goes_to_the_engine():
    ignored = (ROOT / "docker" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    ]
    assert copied
    assert [name for name in copied if not (ROOT / name).exists() or f"!{name}" not in ignored] == []


def test_nobody_is_root_in_the_image():
    assert int(said("USER")) > 0


@pytest.mark.parametrize("more", [json.loads(said("CMD")), COMPOSE["services"]["pixelwise"]["command"]])
def test_the_command_has_the_options_of_serve(more):
    program, name, *options = json.loads(said("ENTRYPOINT"))
    assert program == "pixelwise"
    found = commands.commands[name].make_context(name, [*options, *more])
    assert found.params["host"] == "0.0.0.0"
    assert str(found.params["port"]) == said("EXPOSE")


def test_the_health_check_asks_an_address_that_is_open_and_there():
    from pixelwise.serve.guard import is_open
    from pixelwise.serve.inference_routes import router

    port, path = re.search(r"http://127\.0\.0\.1:(\d+)(/[\w/]+)", said("HEALTHCHECK")).groups()
    assert port == said("EXPOSE")
    assert path in {route.path for route in router.routes}
    assert is_open(path)


def test_compose_asks_for_a_token_and_lets_nobody_in_but_through_nginx():
    service = COMPOSE["services"]["pixelwise"]
    assert ":?" in service["environment"]["PIXELWISE_TOKEN"]
    assert "ports" not in service
    places = {volume.split(":")[1] for volume in service["volumes"]}
    named = [part for part in service["command"] if part.startswith("/")]
    assert [part for part in named if not any(part.startswith(place) for place in places)] == []
    assert set(json.loads(said("VOLUME"))) - {"/tmp"} <= places


def test_nginx_passes_on_to_the_service_and_lets_pass_what_the_server_takes():
    (name, port), limits = re.search(r"server (\w+):(\d+);", NGINX).groups(), Limits()
    assert name in COMPOSE["services"]
    assert port == said("EXPOSE")
    bodies = [int(size) << 20 for size in re.findall(r"client_max_body_size (\d+)m;", NGINX)]
    assert bodies == [limits.body, limits.scene]
    assert int(re.search(r"proxy_read_timeout (\d+)s;", NGINX)[1]) >= limits.seconds
    assert re.search(r"listen (\d+);", NGINX)[1] == COMPOSE["services"]["nginx"]["ports"][0].split(":")[1]


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_reads_its_configuration(tmp_path):
    # The name of the service is known in the network of compose alone.
    here = NGINX.replace("server pixelwise:", "server 127.0.0.1:").replace("/tmp/nginx.pid", str(tmp_path / "pid"))
    (tmp_path / "nginx.conf").write_text(here, encoding="utf-8")
    done = subprocess.run(["nginx", "-t", "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    done = subprocess.run(["hadolint", str(ROOT / "docker" / "Dockerfile")], capture_output=True, text=True)
    assert done.stdout == ""
