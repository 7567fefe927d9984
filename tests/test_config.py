import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.config import Config, explain_config, load_config, override_config, parse_config, save_config
from pixelwise.errors import ConfigError

LEAST = """
[data]
images = "scenes"
labels = "fields.gpkg"
classes = ["background", "field", "boundary"]
"""

names = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), min_size=1, max_size=12)
paths = st.sampled_from(["/data/scenes", "/a b/ü.gpkg", "/x/[y]", '/q"uote'])
shares = st.floats(0, 0.96, allow_nan=False)
tables = st.fixed_dictionaries(
    {
        "data": st.fixed_dictionaries(
            {"images": paths, "labels": paths, "classes": st.lists(names, min_size=2, max_size=5)},
            optional={
                "palette": st.lists(st.just("#102030"), max_size=3),
                "values": st.dictionaries(
                    names, st.lists(st.integers(0, 300) | st.just("#ff0000"), max_size=3), max_size=3
                ),
                "ignore": st.lists(st.integers(0, 300), max_size=3),
                "attribute": names,
                "boundary_width": st.floats(0.1, 50),
                "bands": st.lists(st.integers(1, 13), min_size=1, max_size=4),
                "nodata": st.floats(allow_nan=False, allow_infinity=False),
                "validation": shares,
                "split": st.sampled_from(["scene", "block"]),
            },
        )
    },
    optional={
        "model": st.fixed_dictionaries(
            {},
            optional={
                "name": names,
                "options": st.dictionaries(
                    names, st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | names, max_size=3
                ),
            },
        ),
        "train": st.fixed_dictionaries(
            {},
            optional={
                "steps": st.integers(1, 10**6),
                "learning_rate": st.floats(1e-8, 1),
                "warmup": st.integers(0, 2000),
                "ema_decay": shares,
                "class_weights": st.just("balanced") | st.lists(st.floats(0.1, 9), min_size=1, max_size=3),
                "seed": st.integers(0, 2**31),
            },
        ),
        "augment": st.fixed_dictionaries({}, optional={"rotate90": st.booleans(), "scale": st.just([0.5, 2.0])}),
        "predict": st.fixed_dictionaries({}, optional={"tile": st.just(256), "scales": st.just([0.75, 1.0])}),
    },
)


def written(folder: Path, text: str, name: str = "fields.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@given(tables)
def test_a_saved_configuration_reads_back_as_itself(tmp_path_factory, table):
    config = parse_config(table, "here")
    path = tmp_path_factory.mktemp("config") / "config.toml"
    save_config(config, path)
    # Paths that are absolute already stay, and an unset run folder takes the file's name.
    again = load_config(path)
    assert again.model_copy(update={"run": config.run}) == config


def test_every_default_fills_a_configuration_of_three_keys(tmp_path):
    config = load_config(written(tmp_path, LEAST))
    assert config.model.name == "segformer-b0"
    assert config.data.validation == 0.2
    assert config.train.batch_size >= 1
    assert config.predict.overlap <= config.predict.tile // 2


def test_every_table_but_data_can_be_left_out():
    required = [
        f"{name}.{key}"
        for name, table in Config.model_fields.items()
        for key, entry in table.annotation.model_fields.items()
        if entry.is_required()
    ]
    assert required == ["data.images", "data.classes"]


def test_relative_paths_count_from_the_file_and_not_from_where_one_stands(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    path = written(tmp_path / "project", LEAST + '[model]\nweights = "../w.safetensors"\n')
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_config(Path("..") / "project" / path.name)
    assert config.data.images == tmp_path / "project" / "scenes"
    assert config.data.labels == tmp_path / "project" / "fields.gpkg"
    assert config.model.weights == tmp_path / "w.safetensors"
    assert config.run.folder == Path("runs/fields")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[train]\nstep = 5", ["[train].step is not a known key", "Did you mean steps?"]),
        ("[train]\nlearningrate = 1", ["Did you mean learning_rate?"]),
        ("[trian]\nsteps = 5", ["[trian] is not a known key", "Did you mean [train]?"]),
        ("steps = 5", ["[steps] is not a known key", "Did you mean [train].steps?"]),
        ("[train]\nxyzzy = 5", ["[train].xyzzy", "Known here: steps, batch"]),
        ("[train]\nsteps = 0", ["[train].steps", "greater than or equal to 1", "(it is 0)"]),
        ('[train]\nsteps = "many"', ["[train].steps", "valid integer", "(it is 'many')"]),
        ("[train]\ncross_entropy = 0", ["[train]", "nothing to learn from", "set cross_entropy = 1.0"]),
        ("[train]\nboundary_tolerance = 4", ["boundary_tolerance is 4", "odd"]),
        ("[train]\nloss = 1", ["[train].loss is not a known key"]),
        ('[train]\nms_ssim_product = "mine"', ["ms_ssim_product", "'paper' or 'unet3p'"]),
        ("[predict]\ntile = 100", ["multiples of 32"]),
        ("[predict]\noverlap = 480", ["overlap is 480, more than half of tile = 512"]),
        ("[augment]\nscale = [2.0, 0.5]", ["the smaller first"]),
        ("[augment]\nscale = [1.0, inf]", ["[augment].scale", "finite number", "(it is inf)"]),
        ("[train]\nlearning_rate = inf", ["[train].learning_rate", "finite number", "(it is inf)"]),
        ("[model.options]\nclasses = 5", ["[model]", "'classes'", "[data].classes gives", "leave it out"]),
        ('[train]\nclass_weights = "balance"', ["class_weights is 'balance'", "'none', 'balanced' or a list"]),
        ("[train]\nclass_weights = [-1.0, 1.0]", ["class_weights is [-1.0, 1.0]", "from 0 on"]),
        ("[train]\nclass_weights = [0.0, 0.0]", ["class_weights is [0.0, 0.0]", "not all of them 0"]),
    ],
)
def test_a_mistake_names_the_file_the_key_and_the_fix(tmp_path, text, parts):
    path = written(tmp_path, f"{text}\n{LEAST}" if "[" not in text else f"{LEAST}\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    for part in parts:
        assert part in said


def test_a_missing_key_is_named_with_its_meaning(tmp_path):
    with pytest.raises(ConfigError, match=r"\[data\]\.classes is missing.*order of their indices"):
        load_config(written(tmp_path, '[data]\nimages = "a"\nlabels = "b"\n'))
    with pytest.raises(ConfigError, match=r"\[data\] is missing"):
        load_config(written(tmp_path, ""))


def test_what_is_no_configuration_is_named(tmp_path):
    with pytest.raises(ConfigError, match="There is no configuration"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(written(tmp_path, "[data\n"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(tmp_path / "binary.toml")


def test_a_value_may_stand_without_brackets():
    config = parse_config({"data": {"images": "a", "labels": "b", "classes": ["c", "d"], "values": {"c": 10}}}, "here")
    assert config.data.values == {"c": [10]}


def test_the_explained_configuration_is_toml_with_every_key_and_gives_the_defaults():
    text = explain_config()
    for name, table in Config.model_fields.items():
        for key, entry in table.annotation.model_fields.items():
            line = next(
                line
                for line in text[text.index(f"[{name}]") :].splitlines()
                if line.lstrip("# ").startswith((f"{key} =", f"[{name}.{key}]"))
            )
            assert entry.description in line
    table = tomllib.loads(text)
    table["data"] |= {"images": "a", "labels": "b", "classes": ["c", "d"]}
    assert parse_config(table, "explained") == parse_config({"data": table["data"]}, "least")


def test_a_single_class_is_refused_since_nothing_could_be_learned():
    with pytest.raises(ConfigError, match=r"\[data\].classes names one class.*'background'"):
        parse_config({"data": {"images": "scenes", "labels": "masks", "classes": ["field"]}}, "mine.toml")


def test_the_printed_configuration_can_be_filled_in_below_each_of_its_tables(tmp_path):
    printed = explain_config().replace("[model.options]", "[model.options]\ndrop_path = 0.5\n")
    given = {"images": "scenes", "labels": "fields.gpkg", "classes": ["background", "field"]}
    for key, value in given.items():
        printed = printed.replace(f"# {key} =", f"{key} = {value!r}", 1)
    assert load_config(written(tmp_path, printed)).model.options == {"drop_path": 0.5}


def test_validation_labels_without_images_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"validation_labels needs validation_images, which is missing"):
        load_config(written(tmp_path, LEAST + 'validation_labels = "other.gpkg"\n'))


def test_nodata_may_be_no_number(tmp_path):
    assert math.isnan(load_config(written(tmp_path, LEAST + "nodata = nan\n")).data.nodata)


@pytest.mark.parametrize("line", ["nodata = true", "block = true", "boundary_width = false"])
def test_true_is_no_number(tmp_path, line):
    with pytest.raises(ConfigError, match=rf"\[data\]\.{line.split()[0]}"):
        load_config(written(tmp_path, LEAST + line + "\n"))


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_read(tmp_path):
    path = tmp_path / "windows.toml"
    path.write_bytes(b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode())
    assert load_config(path).data.classes == ["background", "field", "boundary"]


@pytest.mark.parametrize("text", ["a = 1_2_\n", "x = 2024-13-45\n", "a = " + "[" * 5000, "\x00", "a = 1\na = 2\n"])
def test_every_broken_file_is_called_not_valid_toml(tmp_path, text):
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(written(tmp_path, text))


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["train.steps=200"], lambda config: config.train.steps == 200),
        (["train.steps = 200", "train.steps=300"], lambda config: config.train.steps == 300),
        (["model.name=unet"], lambda config: config.model.name == "unet"),
        (['model.name="unet"'], lambda config: config.model.name == "unet"),
        (["model.options.output_stride=8"], lambda config: config.model.options == {"output_stride": 8, "a": 1}),
        (["train.learning_rate=1e-4"], lambda config: config.train.learning_rate == 1e-4),
        (["data.bands=[3, 2, 1]"], lambda config: config.data.bands == [3, 2, 1]),
        (['data.values={"a b" = [1], field = 2}'], lambda config: config.data.values == {"a b": [1], "field": [2]}),
        (["train.precision=bf16"], lambda config: config.train.precision == "bf16"),
        (["data.nodata=nan"], lambda config: math.isnan(config.data.nodata)),
        (["run.folder=out/x"], lambda config: config.run.folder == Path("out/x")),
        (["data.images=elsewhere"], lambda config: config.data.images == Path.cwd() / "elsewhere"),
    ],
)
def test_set_overrides_the_file_with_toml_values(tmp_path, assignments, expected):
    path = written(tmp_path, LEAST + "[model.options]\na = 1\n[train]\nsteps = 5\n")
    config = load_config(path, assignments)
    assert expected(config)
    assert config.data.labels == tmp_path / "fields.gpkg"
    assert expected(override_config(load_config(path), assignments))


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("train.step=5", ["--set train.step=5", "[train].step is not a known key", "Did you mean steps?"]),
        ("steps=5", ["[steps] is not a known key", "Did you mean [train].steps?"]),
        ("train.steps", ["'train.steps' assigns nothing", "train.steps=200"]),
        ("=5", ["assigns nothing"]),
        ("train.steps=many", ["--set train.steps=many", "valid integer", "(it is 'many')"]),
        ("data.bands=[1,", ["not valid TOML"]),
        ("tr ain.steps=1", ["not valid TOML"]),
        ("train=5", ["[train] must be a table", "(it is 5)"]),
        ("train.steps.more=5", ["[train].steps"]),
    ],
)
def test_a_mistake_in_set_names_the_assignment(tmp_path, assignment, parts):
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, LEAST), [assignment])
    for part in parts:
        assert part in str(caught.value)


def test_a_base_gives_what_the_file_leaves_out_and_its_paths_count_from_its_own_folder(tmp_path):
    (tmp_path / "shared").mkdir()
    written(tmp_path / "shared", LEAST + "[train]\nsteps = 7\nseed = 3\n[model.options]\na = 1\nb = 2\n", "all.toml")
    own = 'base = "shared/all.toml"\n[data]\nimages = "mine"\n[train]\nsteps = 9\n[model.options]\nb = 5\n'
    config = load_config(written(tmp_path, own), ["train.seed=4"])
    assert config.data.images == tmp_path / "mine"
    assert config.data.labels == tmp_path / "shared/fields.gpkg"
    assert (config.train.steps, config.train.seed) == (9, 4)
    assert config.model.options == {"a": 1, "b": 5}
    assert config.run.folder == Path("runs/fields")
    save_config(config, tmp_path / "config.toml")
    assert load_config(tmp_path / "config.toml") == config, "what a run keeps is complete and has no base"


@pytest.mark.parametrize(
    ("base", "parts"),
    [
        ("'none.toml'", ["base = 'none.toml'", "there is no"]),
        ("5", ["base is 5", "path of a TOML file"]),
        ("'again.toml'", ["again.toml is the base of", "has a base itself ('fields.toml')"]),
        ("'broken.toml'", ["broken.toml is not valid TOML"]),
    ],
)
def test_a_base_that_cannot_be_used_is_named(tmp_path, base, parts):
    written(tmp_path, "base = 'fields.toml'\n", "again.toml")
    written(tmp_path, "[", "broken.toml")
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, f"base = {base}\n" + LEAST))
    for part in parts:
        assert part in str(caught.value)


def test_an_option_of_no_allowed_type_gives_one_sentence_with_all_of_them(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, LEAST + "[model.options]\nx = {a = 1}\n"))
    assert str(caught.value).count("[model].options") == 1
    for kind in ("boolean", "integer", "string"):
        assert kind in str(caught.value)


def test_addresses_stay_as_they_are(tmp_path):
    text = LEAST.replace('"fields.gpkg"', '"/vsizip/fields.zip/fields.gpkg"')
    assert str(load_config(written(tmp_path, text)).data.labels) == "/vsizip/fields.zip/fields.gpkg"


def test_annotations_in_a_file_take_the_place_of_labels_in_its_base(tmp_path):
    (tmp_path / "base.toml").write_text('[data]\nimages = "i"\nlabels = "m"\nclasses = ["a", "b"]\n')
    (tmp_path / "own.toml").write_text('base = "base.toml"\n[data]\nannotations = "c.json"\n')
    data = load_config(tmp_path / "own.toml").data
    assert data.labels is None
    assert data.label_places == ((tmp_path / "c.json").resolve(),)
    assert load_config(tmp_path / "own.toml", ["data.labels=m"]).data.annotations is None


def test_images_are_beside_annotations_that_name_no_others(tmp_path):
    (tmp_path / "t.toml").write_text('[data]\nannotations = ["a/c.json", "b"]\nclasses = ["a", "b"]\n')
    assert load_config(tmp_path / "t.toml").data.images == [tmp_path.resolve() / "a", tmp_path.resolve() / "b"]
