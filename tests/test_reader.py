"""The reader who follows pages notices what a page gets wrong, and turns pages into notebooks."""

import os
import re

import pytest
from reader import Reader, command_lines

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the pages' commands are those of a POSIX shell")


@pytest.fixture
def follow(tmp_path):
    """Follow a page with this text; give the reader."""

    def follow(text: str) -> Reader:
        (tmp_path / "page.md").write_text(text)
        reader = Reader(tmp_path)
        reader.follow(tmp_path / "page.md")
        return reader

    return follow


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# A\n\n```sh\ntrue\nfalse\n```\n", r"page\.md:3: false\nexit status 1, not 0"),
        ("<!-- fails: next -->\n```sh\ntrue\n```\n", "exit status 0, not 1"),
        ("```sh\necho one\n```\n<!-- prints: next -->\n```text\ntwo\n```\n", r"page\.md:5: said\none"),
        ("```sh\npixelwise nothing\n```\n", "exit status 2"),
        ("```\npixelwise --version\n```\n", "a block without a language"),
        ("<!-- prints: 3 -->\n", "write `prints: next`"),
    ],
)
def test_what_a_page_gets_wrong_is_named_with_its_line(follow, text, said):
    with pytest.raises(AssertionError, match=said):
        follow(text)


def test_a_mistake_in_python_has_the_line_of_the_page(follow, tmp_path):
    with pytest.raises(ZeroDivisionError) as caught:
        follow("# A\n\ntext\n\n```python\nx = 1\nx / 0\n```\n")
    assert (caught.traceback[-1].path.name, caught.traceback[-1].lineno + 1) == ("page.md", 7)


def test_files_names_and_what_was_said_last_through_a_page(follow, tmp_path):
    page = """
```toml title="in/mine.toml"
steps = 2
```

```sh
cat in/mine.toml | tr a-z A-Z   # with a comment
```

<!-- prints: next -->
```text
STEPS ... 2
```

<!-- invisible-code-block: python
hidden = 3
-->

=== "A tab"

    ```python
    print(hidden + 1)
    ```

<!-- prints: next -->
```text
4
```

<!-- skip: next "needs a GPU" -->
```sh
false
```
"""
    assert follow(page).left_out == ["page.md:31: needs a GPU"]
    assert (tmp_path / "in" / "mine.toml").read_text() == "steps = 2\n"


def test_settings_are_added_to_trainings_alone(follow, monkeypatch):
    lines = []
    monkeypatch.setattr("reader.run_here", lambda words: (0, lines.append(words) or ""))
    follow(
        "<!-- settings: --set train.steps=2 -->\n"
        "```sh\npixelwise train a.toml  # long\npixelwise check a.toml\npixelwise train a.toml --resume\n```\n"
    )
    assert lines == [
        ["pixelwise", "train", "a.toml", "--set", "train.steps=2"],
        ["pixelwise", "check", "a.toml"],
        ["pixelwise", "train", "a.toml", "--resume"],
    ]


def test_a_command_that_is_started_ends_with_the_page(follow, tmp_path):
    follow("```sh\nsleep 60 &\necho $PPID\n```\n")
    # Reader waits for what it started, so a process that still ran would keep the test for a minute.
    assert command_lines("a \\\n  b\n\n# c\nd '#e'  # f\n") == ["a b", "d '#e'"]


def test_a_notebook_has_the_commands_and_files_of_its_page_in_their_order():
    notebooks = pytest.importorskip("notebooks", reason="jupytext comes with the extra docs")
    assert len(notebooks.pages()) > 1
    for page in notebooks.pages():
        made = notebooks.notebook(page)
        code = "\n".join(cell.source for cell in made.cells if cell.cell_type == "code")
        text = re.sub(r"<!-- skip.*?-->\s*```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        shells = re.findall(r"^```sh\n(.*?)^```", re.sub(r"\s*\\\n\s*", " ", text), re.MULTILINE | re.DOTALL)
        wanted = [line for shell in shells for line in shell.splitlines()]
        places = [code.index(line) for line in wanted]
        assert places == sorted(places)
        assert all(not cell.get("outputs") for cell in made.cells)
        assert "-->" not in "".join(cell.source for cell in made.cells)
        tiny = "".join(cell.source for cell in notebooks.notebook(page, tiny=True).cells)
        assert tiny.count("train.steps=2") >= ("pixelwise train" in code)
