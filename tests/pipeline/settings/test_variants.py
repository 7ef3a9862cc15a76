"""Variants of a sweep: what the words of a command line mean, and which are refused."""

import pytest

from mocha_pipe.pipeline.errors import ConfigError
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.settings.variants import parse_variants
from mocha_pipe.student.choices import OBJECTIVE_NAMES


def test_variants_are_the_product_first_values_first() -> None:
    found = parse_variants(RunConfig(), ["objective=rkd, paper", "lambda_dist=1,0.5"])
    assert [dict(variant.settings) for variant in found] == [
        {"objective": objective, "lambda_dist": weight} for objective in ("rkd", "paper") for weight in (1.0, 0.5)
    ]


def test_without_a_word_every_objective_is_a_variant() -> None:
    assert [variant.name for variant in parse_variants(RunConfig(), [])] == [
        f"objective={name}" for name in OBJECTIVE_NAMES
    ]


def test_a_variant_has_one_name_whatever_the_order_of_its_settings() -> None:
    first, second = (
        parse_variants(RunConfig(), texts)[0].name
        for texts in (
            ["objective=cosine", "features=paper", "lambda_emb=3"],
            ["lambda_emb=3.0", "features=paper", "objective=cosine"],
        )
    )
    assert first == second == "features=paper,lambda_emb=3,objective=cosine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosine", "sweep takes SETTING=VALUE,VALUE, found 'cosine': write for example objective=paper,cosine"),
        ("=cosine", "sweep takes SETTING=VALUE,VALUE, found '=cosine': write for example objective=paper,cosine"),
        ("epochs=3,3", "sweep takes each value once, found epochs=3 twice: leave one out"),
        ("lambda_emb=1,1.0", "sweep takes each value once, found lambda_emb=1 twice: leave one out"),
        ("seed=0,1", "sweep cannot vary seed: name the seeds with --seeds"),
        ("folder=a", "sweep cannot vary folder: each run has a folder of its own, below the one that --out names"),
        ("student=a.pt", "sweep cannot vary student: all runs start from one detector, which --student names"),
        ("device=cpu", "sweep cannot vary device: it does not change what is learned; name it with --device"),
        ("train=1", "sweep cannot vary train: give all runs the same arguments of `yolo train` with --set"),
        (
            "features=fine,all",
            "the command line: distill.features must be 'deep', 'fine', 'paper' or 'reference', found 'all'",
        ),
        ("lambda_emb=", "the command line: distill.lambda_emb must be a number, found ''"),
    ],
)
def test_what_cannot_be_varied_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_variants(RunConfig(), [text])
    assert str(refused.value) == message


def test_every_mistake_has_its_line() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_variants(RunConfig(), ["objective=paper", "colour=red", "objective=rkd", "seed=1"])
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("the command line: [distill] has no 'colour'; it knows average, batch, ")
    assert lines[1:] == [
        "sweep takes each setting once, found objective twice: write all its values after one =",
        "sweep cannot vary seed: name the seeds with --seeds",
    ]
