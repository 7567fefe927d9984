import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.errors import ConfigError
from pixelwise.files import (
    HOLDER,
    LOCK,
    ensure_folder,
    ensure_hidden_folder,
    is_leftover,
    locked_folder,
    read_arrays,
    recovered_folder,
    remove_leftovers,
    replacing,
    replacing_folder,
)


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


@pytest.fixture
def disk(monkeypatch):
    """What is asked of the disk, in order: ("flush", inode) and ("rename", old name, new name) and ("remove", name)."""
    asked = []
    fsync, replace, rmtree, unlink = os.fsync, os.replace, shutil.rmtree, Path.unlink

    def flush(descriptor):
        asked.append(("flush", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def rename(source, target):
        asked.append(("rename", os.stat(source).st_ino, str(target)))
        replace(source, target)

    def remove(path, **options):
        if os.path.exists(path):
            asked.append(("remove", os.stat(path).st_ino))
        rmtree(path, **options)

    def remove_file(path, **options):
        if path.exists():
            asked.append(("remove", path.stat().st_ino))
        unlink(path, **options)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    monkeypatch.setattr(shutil, "rmtree", remove)
    monkeypatch.setattr(Path, "unlink", remove_file)
    return asked


def test_a_file_is_flushed_before_it_takes_its_name_and_its_folder_after(tmp_path, disk):
    path = tmp_path / "map.tif"
    with replacing(path) as temporary:
        temporary.write_bytes(b"pixels")
    file, folder = path.stat().st_ino, tmp_path.stat().st_ino
    assert disk == [("flush", file), ("rename", file, str(path)), ("flush", folder)]


def test_an_old_folder_goes_only_when_all_of_the_new_one_is_on_the_disk(tmp_path, disk):
    path = tmp_path / "model"
    (path / "old").mkdir(parents=True)
    old = path.stat().st_ino
    with replacing_folder(path) as temporary:
        (temporary / "deep").mkdir()
        for name in ("card", "deep/weights"):
            (temporary / name).write_text(name)
    new = [path.stat().st_ino, *(each.stat().st_ino for each in path.rglob("*"))]
    taken = disk.index(("rename", new[0], str(path)))
    assert {inode for what, inode, *_ in disk[:taken] if what == "flush"} >= set(new)
    named = disk.index(("flush", tmp_path.stat().st_ino), taken)
    assert disk.index(("remove", old)) > named


def test_a_replacement_that_fails_leaves_nothing_that_fills_the_disk(tmp_path):
    with pytest.raises(RuntimeError):
        fail_to_replace(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_users_folder_called_old_is_kept(tmp_path):
    (tmp_path / "model.old").mkdir()
    (tmp_path / "model.old/mine").write_text("mine")
    for _ in range(2):
        with replacing_folder(tmp_path / "model") as temporary:
            (temporary / "weights").write_text("new")
    assert files_in(tmp_path) == {"model/weights": b"new", "model.old/mine": b"mine"}


def test_links_under_the_names_of_temporary_folders_lead_to_no_loss(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis").write_text("thesis")
    run = tmp_path / "run"
    run.mkdir()
    for name in (".model.new.pixelwise", ".model.old.pixelwise"):
        (run / name).symlink_to(victim)
    for _ in range(2):
        with replacing_folder(run / "model") as temporary:
            (temporary / "weights").write_text("new")
    assert files_in(victim) == {"thesis": b"thesis"}
    assert files_in(run) == {"model/weights": b"new"}


def test_only_our_own_leftovers_are_removed(tmp_path):
    (tmp_path / ".map.mine.tif").write_text("mine")
    script = f"""
        import os
        from pixelwise.files import replacing
        with replacing({str(tmp_path / "map.tif")!r}) as temporary:
            temporary.write_text("half")
            os._exit(9)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False).returncode == 9
    assert sum(is_leftover(path) for path in tmp_path.iterdir()) == 1
    remove_leftovers(tmp_path)
    assert files_in(tmp_path) == {".map.mine.tif": b"mine"}


def lock(folder: Path):
    return locked_folder(folder, work="is making map.tif", instead="another output")


def test_a_second_process_is_told_who_holds_a_folder(tmp_path):
    script = f"""
        from pathlib import Path
        from pixelwise.files import locked_folder
        with locked_folder(Path({str(tmp_path)!r}), work="is making map.tif", instead="another output"):
            print("in", flush=True)
            input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "in\n"
        with (
            pytest.raises(ConfigError, match=rf"is making map\.tif \(process {first.pid} on .*another output"),
            lock(tmp_path),
        ):
            pass
        first.kill()
    # A lock dies with its process, however that ended.
    with lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / HOLDER).read_text()


def test_within_one_process_a_folder_is_held_once(tmp_path):
    with lock(tmp_path), pytest.raises(ConfigError, match="Another process"), lock(tmp_path):
        pass
    with lock(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["symbolic link", "dangling link", "hard link", "folder", "pipe"])
def test_what_is_in_the_place_of_a_lock_is_refused_and_left_alone(tmp_path, kind):
    folder, victim = tmp_path / "parts", tmp_path / "thesis"
    folder.mkdir()
    victim.write_text("thesis")
    place = folder / LOCK
    if kind == "symbolic link":
        place.symlink_to(victim)
    elif kind == "dangling link":
        place.symlink_to(tmp_path / "none")
    elif kind == "hard link":
        place.hardlink_to(victim)
    elif kind == "folder":
        place.mkdir()
    else:
        os.mkfifo(place)
    with pytest.raises(ConfigError, match="should be a lock of pixelwise"), lock(folder):
        pass
    assert victim.read_text() == "thesis"
    assert not (tmp_path / "none").exists()


def test_a_hidden_folder_is_never_reached_through_a_link(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / ".map.tif.parts").symlink_to(tmp_path / "mine")
    with pytest.raises(ConfigError, match="is a symbolic link"):
        ensure_hidden_folder(tmp_path / ".map.tif.parts")
    assert ensure_hidden_folder(tmp_path / ".other.tif.parts").is_dir()


def test_a_folder_in_the_place_of_a_file_is_named_before_the_work(tmp_path):
    (tmp_path / "map.tif").mkdir()
    with pytest.raises(ConfigError, match="is a folder"), replacing(tmp_path / "map.tif"):
        pytest.fail("the work was begun")


def test_a_folder_whose_name_no_file_can_have_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="null"):
        ensure_folder(tmp_path / "a\0b")


@pytest.mark.parametrize("way", ["bit", "cut", "other"])
def test_damaged_arrays_are_a_value_error_wherever_the_damage_is(tmp_path, way):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.arange(60).reshape(3, 20), b=np.array(["x", "yz"]))
    whole = path.read_bytes()
    assert read_arrays(path)["b"].tolist() == ["x", "yz"]
    for at in range(3, len(whole), 3):
        changed = whole[:at] + bytes([whole[at] ^ 9]) + whole[at + 1 :]
        path.write_bytes({"bit": changed, "cut": whole[:at], "other": whole[at:]}[way])
        try:
            read = read_arrays(path)
        except ValueError:
            continue
        # Some bytes of a zip file are read by nobody. Names may change.
        assert "a" not in read or np.array_equal(read["a"], np.arange(60).reshape(3, 20))
