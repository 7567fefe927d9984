import pytest
from small_server import serving, write_model

from pixelwise.serve.options import Folders, Limits, ServeOptions, Work


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "fields")


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """A server with two models, a folder of scenes and one of corrections, and small limits."""
    base = tmp_path_factory.mktemp("served")
    (base / "scenes").mkdir()
    limits = Limits(body=1 << 20, json=1 << 17, pixels=20_000, scene_pixels=1_000_000, idle=1.0)
    folders = Folders(base / "jobs", (base / "scenes",), base / "corrected")
    options = ServeOptions(limits=limits, folders=folders, work=Work(device="cpu", workers=2))
    other = write_model(base / "other", seed=1, classes=("dark", "bright"), tile=128)
    with serving(f"fields={model}", f"other={other}", f"fields={model}", options=options) as client:
        client.base = base
        yield client
