from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pixelwise.data.problems import grouped
from pixelwise.errors import DataError
from pixelwise.labels import UnknownMaskValuesError, make_classes, make_mask_table

names = st.lists(st.from_regex(r"[a-z][a-z0-9_ ]{0,8}[a-z0-9]\\.(png|tif)", fullmatch=True), min_size=1, unique=True)


@given(names, st.sampled_from(["/data/masks", "masks", "/a b/m-1"]))
def test_problems_that_differ_in_files_and_numbers_are_one_paragraph_that_names_every_file(files, folder):
    folder = Path(folder)
    problems = [
        DataError(
            f"{folder / name} is {90 + i}x96 pixels, but its image {folder / 'i' / name} is 96x96. Export it again."
        )
        for i, name in enumerate(files)
    ]
    (said,) = grouped(problems)
    assert said.startswith(str(problems[0]))
    assert all(str(folder / name) in said for name in files)
    assert (f"{len(files) - 1} more:" in said) == (len(files) > 1)


def test_kinds_stay_apart_and_keep_their_order():
    a = [DataError(f"m/{i}.png is truncated at byte {i}.") for i in range(3)]
    b = DataError("m/9.png lies elsewhere.")
    table = make_mask_table(make_classes(["x", "y"]))
    c = [UnknownMaskValuesError({f"m/{i}.png": {7 + i: 1}}, table) for i in range(2)]
    said = grouped([a[0], b, c[0], a[1], c[1], a[2]])
    assert len(said) == 3
    assert said[0] == f"{a[0]} The same is wrong with 2 more: m/1.png, m/2.png."
    assert said[1] == str(b)
    assert said[2].startswith("2 masks hold values")
