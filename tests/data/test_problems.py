from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pixelwise.data.problems import Problem, grouped
from pixelwise.errors import DataError
from pixelwise.labels import UnknownMaskValuesError, make_classes, make_mask_table

names = st.lists(st.text("ab1 .,;()[]ü", min_size=1, max_size=6), min_size=1, max_size=5, unique=True)


@given(names, st.sampled_from(["/data/masks", "masks", "/a b/m-1"]))
def test_problems_that_differ_in_files_and_numbers_are_one_paragraph_that_names_every_file(files, folder):
    problems = []
    for i, name in enumerate(files):
        mask, image = Path(folder) / f"{name}.png", Path(folder) / "i" / f"{name}.png"
        said = f"{mask} is {90 + i}x96 pixels, but its image {image} is 96x96. Export it again."
        problems.append(Problem(DataError(said), (image, mask)))
    (said,) = grouped(problems)
    assert said.startswith(str(problems[0].error))
    assert [problem.file for problem in problems] == [str(Path(folder) / f"{name}.png") for name in files]
    assert all(problem.file in said for problem in problems)
    assert (f"{len(files) - 1} more:" in said) == (len(files) > 1)


def test_kinds_stay_apart_and_keep_their_order():
    def problem(i, text):
        return Problem(DataError(f"m/{i}.png {text}"), (Path(f"m/{i}.png"),))

    a = [problem(i, f"is truncated at byte {i}.") for i in range(3)]
    b = problem(9, "lies elsewhere.")
    table = make_mask_table(make_classes(["x", "y"]))
    c = [Problem(UnknownMaskValuesError({f"m/{i}.png": {7 + i: 1}}, table), (Path(f"m/{i}.png"),)) for i in range(2)]
    said = grouped([a[0], b, c[0], a[1], c[1], a[2]])
    assert len(said) == 3
    assert said[0] == "m/0.png is truncated at byte 0. The same is wrong with 2 more: m/1.png, m/2.png."
    assert said[1] == "m/9.png lies elsewhere."
    assert said[2].startswith("2 masks hold values")
