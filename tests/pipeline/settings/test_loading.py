"""Settings from a TOML file and from flags: who wins, and what is refused with which words."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError
from ultralytics.cfg import DEFAULT_CFG_DICT

from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.pipeline.settings.loading import apply_values, load_config, parse_assignments
from mocha_pipe.pipeline.settings.recipes import demo, miniature, photographs, reference
from mocha_pipe.pipeline.settings.sections import CacheConfig, RunConfig
from mocha_pipe.student.choices import LearnerName
from mocha_pipe.student.fewshot.prototypes import LEARNERS
from mocha_pipe.student.training.arguments import DEFAULT_TRAIN_ARGUMENTS


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_without_file_and_flags_it_is_the_miniature_with_all_folders_named() -> None:
    config = load_config(None, {})
    assert config == miniature(Path("work")).resolved()
    assert config.data.path == Path("work/miniature/data.yaml")
    assert config.cache.folder == Path("work/cache")
    assert config.pretrain.folder == Path("work/base")
    assert config.distill.folder == Path("work/distill")
    assert config.fewshot.folder == Path("work/fewshot")
    assert config.fewshot.benchmark == Path("work/miniature/benchmark")
    assert config.sweep.folder == Path("work/sweep")


def test_the_demo_keeps_to_a_folder_of_its_own() -> None:
    config = load_config(None, {}, recipe=demo)
    assert config.fewshot.shots == (1, 5)
    assert config.fewshot.folder == Path("work/demo")
    assert config.distill.folder == Path("work/demo/distill")
    assert load_config(None, {"root": Path("x")}, recipe=demo).fewshot.folder == Path("x")


def test_other_data_takes_the_settings_for_photographs(tmp_path: Path) -> None:
    config = load_config(None, {"data": {"path": tmp_path / "data.yaml"}})
    assert config.distill == photographs().resolved().distill
    assert not config.uses_miniature


@pytest.mark.parametrize(
    ("student", "schedule", "rate"),
    [(None, "joint", 0.1), ("yolov8n.pt", "frozen", 0.1), ("yolov8n.yaml", "joint", 1.0)],
)
def test_trained_weights_stay_as_they_are_unless_somebody_says_otherwise(
    student: str | None, schedule: str, rate: float, tmp_path: Path
) -> None:
    values: dict[str, object] = {"data": {"path": tmp_path / "data.yaml"}, "distill": {"student": student}}
    found = load_config(None, values).distill
    assert (found.features, found.schedule, found.detector_rate) == ("deep", schedule, rate)
    asked = load_config(
        None, {**values, "distill": {"student": student, "schedule": "alternate", "detector_rate": 0.5}}
    )
    assert (asked.distill.schedule, asked.distill.detector_rate) == ("alternate", 0.5)


def test_the_reference_trains_as_its_authors_do() -> None:
    asked = reference(photographs()).resolved().distill
    train = {**DEFAULT_TRAIN_ARGUMENTS, **asked.train}
    assert (train["optimizer"], train["momentum"], train["lr0"], train["weight_decay"]) == ("Adam", 0.937, 1e-3, 1e-4)
    assert asked.detector_rate is not None
    assert train["lr0"] * asked.detector_rate == pytest.approx(1e-4)
    assert train["weight_decay"] * asked.detector_rate == pytest.approx(1e-5)
    assert (train["cos_lr"], train["nbs"], asked.warmup_steps) == (True, asked.batch, 1000)
    assert (asked.epochs, asked.batch, asked.image_size) == (50, 16, 672)
    assert (asked.features, asked.objective, asked.schedule) == ("reference", "paper", "alternate")
    assert (asked.lambda_dist, asked.lambda_emb, asked.target_scale, asked.average) == (1, 1, "reference", False)


def test_the_reference_augments_nothing() -> None:
    train = {**DEFAULT_TRAIN_ARGUMENTS, **reference(photographs()).distill.train}
    augmentations = (
        "hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr", "bgr",
        "mosaic", "mixup", "cutmix", "copy_paste", "multi_scale",
    )  # fmt: skip
    assert {name: train.get(name, DEFAULT_CFG_DICT[name]) for name in augmentations} == dict.fromkeys(augmentations, 0)


def test_a_miniature_made_elsewhere_takes_the_settings_of_the_miniature(tmp_path: Path) -> None:
    (tmp_path / "complete.json").write_text('{"stage": "miniature"}')
    config = load_config(None, {"data": {"path": tmp_path / "data.yaml"}})
    assert config.distill.epochs == miniature().distill.epochs


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path: Path) -> None:
    path = toml(
        tmp_path, 'root = "r"\n[distill]\nepochs = 2\nbatch = 8\n[distill.train]\nlr0 = 0.5\n[teacher]\nbatch = 3\n'
    )
    config = load_config(path, {"distill": {"epochs": 9, "train": {"mixup": 0.1}}})
    assert (config.distill.epochs, config.distill.batch, config.teacher.batch) == (9, 8, 3)
    assert config.distill.folder == Path("r/distill")
    assert config.distill.train["lr0"] == 0.5
    assert config.distill.train["mixup"] == 0.1
    assert config.distill.train["optimizer"] == "AdamW"


def test_values_take_the_type_of_their_setting(tmp_path: Path) -> None:
    path = toml(
        tmp_path, '[fewshot]\nshots = [1, 5]\nconfidence = 1\nbenchmark = "b"\n[miniature.size]\ntrain_scenes = 4\n'
    )
    config = load_config(path, {})
    assert config.fewshot.shots == (1, 5)
    assert config.fewshot.confidence == 1.0
    assert isinstance(config.fewshot.confidence, float)
    assert config.fewshot.benchmark == Path("b")
    assert config.miniature.size.train_scenes == 4


def test_every_problem_of_a_file_has_its_line(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        '[cache]\nfoldr = "x"\n[distill]\nepochs = "many"\nfeatures = "all"\nlambda_emb = true\n[bananas]\nx = 1\n',
    )
    with pytest.raises(ConfigError) as refused:
        load_config(path, {})
    assert str(refused.value).splitlines() == [
        f"{path}: [cache] has no 'foldr'; it knows dim, engine, folder, part, retry_failed, reuse, url",
        f"{path}: distill.epochs must be a whole number, found 'many'",
        f"{path}: distill.features must be 'deep', 'fine', 'paper' or 'reference', found 'all'",
        f"{path}: distill.lambda_emb must be a number, found True",
        f"{path}: the top level has no 'bananas'; it knows "
        "cache, data, distill, fewshot, miniature, pretrain, root, sweep, teacher",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[cache]\nfolder = 3", "cache.folder must be a text, found 3"),
        ("[fewshot]\nshots = 1", "fewshot.shots must be a list, found 1"),
        ("[fewshot]\nteacher = 1", "fewshot.teacher must be true or false, found 1"),
        ("[distill]\ntrain = 1", "distill.train must be a table, found 1"),
        ("distill = 1", "distill must be a table, found 1"),
        ("[distill]\nstudent = 1", "distill.student must be a text, found 1"),
        ('[fewshot]\nshots = [1, "x"]', "fewshot.shots[1] must be a whole number, found 'x'"),
        ('[pretrain]\nepochs = "3"', "pretrain.epochs must be a whole number, found '3'"),
        ("[pretrain]\nepochs = 2.0", "pretrain.epochs must be a whole number, found 2.0"),
        ("[pretrain]\nseed = true", "pretrain.seed must be a whole number, found True"),
        ("[miniature.size]\ntrain = 1", "[miniature.size] has no 'train'; it knows objects_per_shape, "
         "scenes_per_object, train_scenes, val_scenes"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_said_in_words(tmp_path: Path, text: str, message: str) -> None:
    path = toml(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        load_config(path, {})
    assert str(refused.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("distill.epochs", -3, "must be at least 1, found -3"),
        ("distill.batch", 0, "must be at least 1, found 0"),
        ("distill.image_size", 31, "must be at least 32, found 31"),
        ("distill.seed", -1, "must be at least 0, found -1"),
        ("distill.lambda_dist", -0.5, "must be at least 0, found -0.5"),
        ("distill.lambda_emb", float("nan"), "must be a finite number, found nan"),
        ("distill.objective", "x", "must be 'paper', 'calibrated', 'local', 'cosine', 'smooth-l1', 'rkd', "
         "'contrastive', 'graph', 'linear' or 'best', found 'x'"),
        ("distill.schedule", "x", "must be 'joint', 'alternate' or 'frozen', found 'x'"),
        ("distill.train", {"imgsz": 64},
         "must not hold 'imgsz', which has a setting of its own: image_size (--imgsz)"),
        ("data.window", 0, "must be at least 1, found 0"),
        ("miniature.seed", -1, "must be at least 0, found -1"),
        ("cache.dim", 0, "must be at least 1, found 0"),
        ("cache.part", "8/8", "must be INDEX/COUNT, counted from 0, found '8/8': eight parts are 0/8, 1/8 ... 7/8"),
        ("fewshot.episodes", 0, "must be at least 1, found 0"),
        ("fewshot.queries", 0, "must be at least 1, found 0"),
        ("fewshot.shots", [1, 1], "must be one number or several different ones, found [1, 1]"),
        ("fewshot.learner", "svm",
         "must be 'conditional', 'gallery', 'protonet' or 'simpleshot', found 'svm'"),
        ("fewshot.confidence", 1.5, "must be at most 1, found 1.5"),
        ("fewshot.head_epochs", -1, "must be at least 0, found -1"),
        ("fewshot.false_accept_rate", 0, "must be above 0, found 0"),
        ("fewshot.false_accept_rate", 1, "must be below 1, found 1"),
        ("sweep.seeds", [], "must be one number or several different ones, found []"),
        ("sweep.shots", [0, 1], None),
        ("teacher.mode", "ask", "must be 'prompt' or 'generate', found 'ask'"),
        ("teacher.dtype", "int8", "must be 'auto', 'float32', 'bfloat16' or 'float16', found 'int8'"),
        ("teacher.prompt", "What?",
         "must name the class with {label}, found 'What?': write for example 'Describe the {label}.'"),
        ("teacher.crop_margin", 11, "must be at most 10, found 11"),
        ("teacher.num_beams", 0, "must be at least 1, found 0"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_in_file_and_flags(setting: str, value: object, message: str | None) -> None:
    section, _, name = setting.partition(".")
    with pytest.raises(ConfigError) as refused:
        load_config(None, {section: {name: value}})
    expected = f"{setting} {message}" if message else f"{setting}[0] must be at least 1, found 0"
    assert str(refused.value) == f"the command line: {expected}"


@pytest.mark.parametrize(("text", "numbers"), [("0/1", (0, 1)), ("7/8", (7, 8)), ("02/10", (2, 10))])
def test_a_part_is_an_index_and_a_count(text: str, numbers: tuple[int, int]) -> None:
    assert CacheConfig(part=text).part_numbers == numbers
    assert CacheConfig().part_numbers is None


@pytest.mark.parametrize("text", ["8/8", "1", "/", "1/", "/2", "-1/2", "1/2/3", "0/0", "a/b", "²/3", ""])
def test_other_texts_are_no_part(text: str) -> None:
    with pytest.raises(ValidationError, match="must be INDEX/COUNT"):
        CacheConfig(part=text)


def test_a_device_may_be_a_number_in_a_file(tmp_path: Path) -> None:
    assert load_config(toml(tmp_path, "[fewshot]\ndevice = 1\n"), {}).fewshot.device == "1"


def test_replaced_values_are_checked() -> None:
    config = RunConfig()
    with pytest.raises(ValidationError):
        replace(config.distill, epochs=0)
    assert replace(config, distill=replace(config.distill, epochs=3)).distill.epochs == 3


def test_names_of_learners_are_those_that_there_are() -> None:
    assert sorted(LEARNERS) == sorted(get_args(LearnerName))


def test_a_flag_that_does_not_fit_is_said_to_be_a_flag() -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(None, {"distill": {"features": "all"}})
    must = "distill.features must be 'deep', 'fine', 'paper' or 'reference'"
    assert str(refused.value) == f"the command line: {must}, found 'all'"


def test_a_missing_or_broken_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as missing:
        load_config(tmp_path / "no.toml", {})
    assert str(missing.value) == f"{tmp_path}/no.toml: there is no such file; name an existing one with --config"
    with pytest.raises(ConfigError, match=r"run\.toml is not TOML: .*; mend that line$"):
        load_config(toml(tmp_path, "= 3"), {})


def test_assignments_read_json_values_and_keep_the_rest_as_text() -> None:
    texts = ["lr0=0.01", "cos_lr=True", "cos_lr2=true", "optimizer=SGD", "classes=[0, 2]", "cache=None", "name=a=b"]
    assert parse_assignments(texts) == {
        "lr0": 0.01, "cos_lr": True, "cos_lr2": True, "optimizer": "SGD", "classes": [0, 2], "cache": None,
        "name": "a=b",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["lr0", "=3"])
def test_an_assignment_needs_a_name_and_an_equals_sign(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_assignments([text])
    assert str(refused.value) == f"--set takes key=value, found {text!r}: write for example --set lr0=0.001"


def test_applying_nothing_changes_nothing() -> None:
    assert apply_values(RunConfig(), {}, where="here") == RunConfig()


@pytest.mark.parametrize(
    "text", [f"a = {2000 * '['}", f"a = {5000 * '9'}", "a = \xff"], ids=["deep", "digits", "bytes"]
)
def test_a_hostile_toml_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(f"a = {text}".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"is not TOML: .+; mend that line$") as caught:
        load_config(path, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [100_000 * "[", 400 * "9"], ids=["deep", "digits"])
def test_a_hostile_value_stays_a_text(text: str) -> None:
    assert parse_assignments([f"name={text}"]) == {"name": text}
