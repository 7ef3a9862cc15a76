import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mocha_pipe.teacher_cache.archive.form import ArchiveForm
from mocha_pipe.teacher_cache.archive.rounding import RULE
from mocha_pipe.teacher_cache.errors import CacheCorruptError, CacheFormatError
from mocha_pipe.teacher_cache.spec import TeacherSpec
from mocha_pipe.teacher_cache.store.attributes import parse_attributes
from mocha_pipe.teacher_cache.store.layout import attributes_digest

VALUES = np.random.default_rng(0).standard_normal((32, 24)).astype(np.float16)


def form_of(cache: Path, *, lossy: bool) -> ArchiveForm:
    names = ["zarr.json", *(f"{array}/zarr.json" for array in ("hidden", "visual", "targets"))]
    return ArchiveForm.of({name: (cache / name).read_text() for name in names}, lossy=lossy)


@pytest.fixture(params=[False, True], ids=["exact", "lossy"])
def form(finished: Path, request: pytest.FixtureRequest) -> ArchiveForm:
    return form_of(finished, lossy=request.param)


def test_a_rounded_cache_says_so_and_an_exact_one_keeps_its_words(finished: Path) -> None:
    exact, lossy = form_of(finished, lossy=False), form_of(finished, lossy=True)
    assert exact.descriptions["zarr.json"] == (finished / "zarr.json").read_text()
    assert lossy.spec == replace(exact.spec, rounding=RULE)
    assert lossy.spec.exact == exact.spec
    assert lossy.spec.digest() != exact.spec.digest()
    attributes = parse_attributes(lossy.descriptions["zarr.json"].encode(), "here")
    assert attributes["teacher_digest"] == lossy.spec.digest()
    assert lossy.spec.differences(exact.spec) == [f"rounding differs: cache has {RULE!r}, expected ''"]


def test_a_spec_without_rounding_has_the_digest_that_it_always_had(finished: Path) -> None:
    spec = form_of(finished, lossy=False).spec
    assert "rounding" not in spec.to_json()
    assert TeacherSpec.from_json(spec.to_json()).digest() == spec.digest()


def test_a_description_is_read_again(form: ArchiveForm) -> None:
    content = form.metadata()["zarr.json"]
    assert ArchiveForm.parse(content, "there") == form
    assert next(iter(form.metadata())) == "zarr.json"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"attributes": {"format": "mocha-pipe teacher cache"}}'])
def test_other_descriptions_are_none_of_an_archive(content: bytes) -> None:
    assert ArchiveForm.parse(content, "there") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("lossy", True), ("descriptions", {}), ("descriptions", 7), ("digest", "0" * 32), ("digest", None)],
)
def test_a_damaged_description_is_named(finished: Path, field: str, value: object) -> None:
    document = json.loads(form_of(finished, lossy=False).metadata()["zarr.json"])
    document["attributes"][field] = value
    with pytest.raises(CacheCorruptError, match=r"^there/zarr\.json is damaged: .*; copy it there from a sound copy$"):
        ArchiveForm.parse(json.dumps(document).encode(), "there")


def test_a_later_version_is_refused(finished: Path) -> None:
    document = json.loads(form_of(finished, lossy=False).metadata()["zarr.json"])
    document["attributes"]["format_version"] = 2
    with pytest.raises(CacheFormatError, match="reads archives of version 1; there has version 2; use the mocha-pipe"):
        ArchiveForm.parse(json.dumps(document).encode(), "there")


def test_shards_larger_than_blosc_takes_are_refused(finished: Path) -> None:
    document = json.loads(form_of(finished, lossy=False).metadata()["zarr.json"])
    attributes = document["attributes"]
    wide = json.loads(attributes["descriptions"]["hidden/zarr.json"])
    wide["shape"][1] = 2**26
    attributes["descriptions"]["hidden/zarr.json"] = json.dumps(wide)
    attributes["digest"] = attributes_digest(attributes)
    with pytest.raises(CacheCorruptError):
        ArchiveForm.parse(json.dumps(document).encode(), "there")


@pytest.mark.parametrize("values", [VALUES, np.full((32, 24), np.nan, np.float16)], ids=["numbers", "set aside"])
def test_shards_come_back(form: ArchiveForm, values: NDArray[np.float16]) -> None:
    files = form.encode("hidden", 0, values)
    assert tuple(files) == form.names("hidden", 0)
    back = form.decode("hidden", 0, files)
    if form.is_lossy:
        np.testing.assert_allclose(back, values, atol=0.05)
    else:
        assert back.tobytes() == values.tobytes()


def test_the_last_shard_has_its_own_length(form: ArchiveForm) -> None:
    rows = VALUES[:21]  # of 85
    assert len(form.decode("hidden", 2, form.encode("hidden", 2, rows))) == 21


def test_every_flipped_bit_is_found(form: ArchiveForm) -> None:
    files = form.encode("hidden", 0, VALUES)
    for name, content in files.items():
        for position in range(0, len(content), 7):
            damaged = bytearray(content)
            damaged[position] ^= 1 << position % 8
            with pytest.raises(ValueError, match=r"."):
                form.decode("hidden", 0, {**files, name: bytes(damaged)})
        for torn in (content[:-1], content[: len(content) // 2], b"", content + b"\0"):
            with pytest.raises(ValueError, match=r"."):
                form.decode("hidden", 0, {**files, name: torn})


def test_arrays_are_those_of_the_specification(form: ArchiveForm) -> None:
    for name, content in form.metadata().items():
        if name != "zarr.json":
            codecs = [codec["name"] for codec in json.loads(content)["codecs"]]
            assert codecs in (["bytes", "blosc", "crc32c"], ["bytes", "crc32c"])


@pytest.mark.parametrize(("rows_per_shard", "library"), [(32, "zlib"), (2**17 // 24 + 32, "zstd")])
def test_zstd_has_blocks_that_its_halves_fill(finished: Path, rows_per_shard: int, library: str) -> None:
    form = form_of(finished, lossy=False)
    document = json.loads(form.descriptions["zarr.json"])
    document["attributes"]["rows_per_shard"] = rows_per_shard
    document["attributes"]["digest"] = attributes_digest(document["attributes"])
    larger = ArchiveForm.of({**form.descriptions, "zarr.json": json.dumps(document)}, lossy=False)
    [_, blosc, _] = json.loads(larger.metadata()["hidden/zarr.json"])["codecs"]
    assert blosc["configuration"]["cname"] == library
