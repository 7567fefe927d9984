import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.errors import ConfigError
from pixelwise.files import ensure_folder, recovered_folder, replacing, replacing_folder


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@given(old=st.none() | st.binary(max_size=64), new=st.binary(max_size=64), parts=st.integers(0, 3), fails=st.booleans())
def test_a_file_is_either_replaced_whole_or_left_as_it_was(tmp_path_factory, old, new, parts, fails):
    path = tmp_path_factory.mktemp("files") / "map.tif"
    if old is not None:
        path.write_bytes(old)
    try:
        with replacing(path) as temporary:
            assert temporary.suffix == ".tif"
            for _ in range(parts):
                temporary.write_bytes(b"half")
            if fails:
                raise RuntimeError
            temporary.write_bytes(new)
    except RuntimeError:
        pass
    expected = old if fails else new
    assert files_in(path.parent) == ({} if expected is None else {"map.tif": expected})


def fail_to_replace(folder: Path) -> None:
    with replacing_folder(folder) as temporary:
        (temporary / "stray").write_text("stray")
        raise RuntimeError


def test_a_folder_keeps_its_old_files_when_its_replacement_fails(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").write_text("old")
    with pytest.raises(RuntimeError):
        fail_to_replace(folder)
    assert files_in(folder) == {"old": b"old"}


def test_a_folder_is_replaced_with_nothing_of_the_old_left(tmp_path):
    folder = tmp_path / "model"
    for name in ("first", "second"):
        with replacing_folder(folder) as temporary:
            (temporary / name).write_text(name)
    assert files_in(tmp_path) == {"model/second": b"second"}


def test_what_a_failed_replacement_left_does_not_get_into_the_next(tmp_path):
    with pytest.raises(RuntimeError):
        fail_to_replace(tmp_path / "model")
    with replacing_folder(tmp_path / "model") as temporary:
        (temporary / "good").write_text("good")
    assert files_in(tmp_path) == {"model/good": b"good"}


@pytest.mark.parametrize("killed_at", range(1, 5))
def test_a_process_killed_at_any_rename_of_a_replacement_leaves_the_old_or_the_new_folder(tmp_path, killed_at):
    folder = tmp_path / "model"
    with replacing_folder(folder) as temporary:
        (temporary / "weights").write_text("old")
    script = f"""
        import os, shutil, signal
        from pixelwise.files import replacing_folder
        calls = 0
        def dying(real):
            def call(*arguments, **options):
                global calls
                calls += 1
                if calls == {killed_at}:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)
            return call
        with replacing_folder({str(folder)!r}) as temporary:
            (temporary / "weights").write_text("new")
            os.replace, shutil.rmtree = dying(os.replace), dying(shutil.rmtree)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert files_in(recovered_folder(folder)) in ({"weights": b"old"}, {"weights": b"new"})


def test_a_folder_that_was_never_replaced_is_recovered_as_itself(tmp_path):
    (tmp_path / "model").mkdir()
    assert recovered_folder(tmp_path / "model") == tmp_path / "model"
    assert recovered_folder(tmp_path / "none") == tmp_path / "none"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("below", ["", "deeper", "deeper/still"])
def test_a_file_in_the_way_of_a_folder_is_named(tmp_path, below):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigError, match="a file is in the way") as caught:
        ensure_folder(tmp_path / "runs" / below)
    assert str(tmp_path / "runs" / below) in str(caught.value)


def test_an_unwritable_folder_is_named_before_anything_is_written(tmp_path, monkeypatch):
    # Root may write anywhere, so the answer of the system is played.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="not writable") as caught, replacing(tmp_path / "map.tif") as temporary:
        temporary.write_text("never")
    assert str(tmp_path) in str(caught.value)
    assert files_in(tmp_path) == {}
