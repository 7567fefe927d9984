import io

from rich.console import Console

from pixelwise.commands import progress


def test_each_stage_has_a_line_with_its_own_share_on_a_terminal(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda: Console(file=shown, force_terminal=True, width=80))
    with progress.shown_stages() as advance:
        advance("Finding regions", 0.5)
        advance("Finding regions", 1.0)
        advance("Drawing outlines", 0.25)
    lines = shown.getvalue().splitlines()
    regions = [line for line in lines if "Finding regions" in line]
    outlines = [line for line in lines if "Drawing outlines" in line]
    assert "100%" in regions[-1]
    assert "25%" in outlines[-1]
    assert lines.index(regions[-1]) < lines.index(outlines[-1])


def test_stages_are_silent_elsewhere(capsys):
    with progress.shown_stages() as advance:
        advance("Finding regions", 1.0)
    assert capsys.readouterr().out == ""
