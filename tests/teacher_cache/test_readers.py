"""The snippets of docs/readers.md, run by the readers that are installed: on a sound cache, and after a flipped bit."""

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mocha_pipe.data.files import file_digest
from mocha_pipe.teacher_cache.store.cache import RegionCache
from mocha_pipe.teacher_cache.store.layout import shard_path

ROOT = Path(__file__).parents[2]
ARRAYS, TABLES = re.split(r"^## ", (ROOT / "docs" / "readers.md").read_text(), flags=re.MULTILINE)[1:3]
NODE = ROOT / "work" / "readers" / "node_modules"

RUN = """
import json, os, sys, warnings
warnings.simplefilter("error")
code = compile(open(sys.argv[1]).read(), "readers.md", "exec")
for folder in sys.argv[2:]:
    os.chdir(folder)
    names = {}
    try:
        exec(code, names)
    except ModuleNotFoundError as error:
        print(json.dumps({"absent": str(error)}))
    except BaseException as error:  # polars panics
        print(json.dumps({"error": repr(error)}))
    else:
        found = {name: names[name] for name in ("names", "classes") if name in names}
        print(json.dumps(found or {"rows": names["rows"].astype("float64").tolist()}))
"""


def snippets(chapter: str) -> dict[str, str]:
    """Code by the heading above it."""
    return dict(re.findall(r"^### ([^\n]+)\n.*?```(?:python|js)\n(.*?)```", chapter, flags=re.MULTILINE | re.DOTALL))


def verdicts(chapter: str) -> dict[str, str]:
    """The column "a flipped bit" by the reader."""
    return dict(re.findall(r"^\| ([^|]+) \| [^|]+ \| (found|not found|cannot read) \|", chapter, flags=re.MULTILINE))


def run(code: str, *folders: Path) -> list[dict[str, list[object]]]:
    """What a snippet read in each folder, in a process of its own: some readers do not stand a later fork."""
    script = folders[0] / "snippet.py"
    script.write_text(code)
    command = [sys.executable, "-c", RUN, str(script), *map(str, folders)]
    if 'from "zarrita"' in code:
        return [run_js(code, folder) for folder in folders]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[dict[str, list[object]]] = [json.loads(line) for line in done.stdout.splitlines()]
    if "absent" in found[0]:
        pytest.skip(f"{found[0]['absent']}; pip install 'mocha-pipe[readers]'")
    return found


def run_js(code: str, folder: Path) -> dict[str, list[object]]:
    if not (NODE / "zarrita").exists():
        pytest.skip("zarrita is not in work/readers; npm install --prefix work/readers zarrita @zarrita/storage")
    (folder / "node_modules").symlink_to(NODE)
    (folder / "snippet.mjs").write_text(code)
    own = NODE / ".bin" / "node"
    node = str(own) if own.exists() else shutil.which("node")
    if (
        node is None
        or b"function" not in subprocess.run([node, "-p", "typeof Float16Array"], capture_output=True).stdout
    ):
        pytest.skip("this node has no Float16Array; npm install --prefix work/readers node@24")
    done = subprocess.run([node, "snippet.mjs"], cwd=folder, capture_output=True, text=True)
    return {"rows": json.loads(done.stdout)} if done.returncode == 0 else {"error": [done.stderr]}


@pytest.fixture
def folders(finished: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with the same cache in work/cache, the second to be damaged."""
    for name in ("sound", "damaged"):
        shutil.copytree(finished, tmp_path / name / "work" / "cache")
    return tmp_path / "sound", tmp_path / "damaged"


def flip(path: Path, place: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_every_reader_with_a_snippet_has_a_verdict() -> None:
    assert {*snippets(ARRAYS), "GDAL"} == set(verdicts(ARRAYS))
    assert set(snippets(TABLES)) == set(verdicts(TABLES))


@pytest.mark.parametrize("reader", snippets(ARRAYS))
def test_rows_as_every_reader_reads_them(reader: str, finished: Path, folders: tuple[Path, Path]) -> None:
    code = snippets(ARRAYS)[reader]
    if "Fused" in code and not hasattr(pytest.importorskip("zarr.core.codec_pipeline"), "FusedCodecPipeline"):
        pytest.skip("this zarr has no fused pipeline; it came with zarr 3.3")
    flip(shard_path(folders[1] / "work/cache/targets", 0), 3, 2)
    sound, damaged = run(code, *folders)
    expected = RegionCache.open(finished).rows("targets").lookup(np.arange(3)).astype(np.float64)
    np.testing.assert_array_equal(np.array(sound["rows"]).reshape(expected.shape), expected)
    if verdicts(ARRAYS)[reader] == "found":
        assert "error" in damaged
    else:
        assert not np.array_equal(np.array(damaged["rows"]).reshape(expected.shape), expected)


@pytest.mark.parametrize("reader", snippets(TABLES))
def test_tables_as_every_reader_reads_them_after_many_flips(
    reader: str, finished: Path, folders: tuple[Path, Path]
) -> None:
    """Image and class of each region, and what becomes of a flipped bit anywhere in the pages of the regions."""
    table = RegionCache.open(finished).table
    expected = {
        "names": [table.image_names[image] for image in table.image_of_rows(np.arange(len(table)))],
        "classes": [table.class_name(row) for row in range(len(table))],
    }
    group = pq.read_metadata(finished / "regions.parquet").row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    places = [
        place
        for column in columns
        if column.path_in_schema in ("image", "class_name")  # the others are not what the snippets show
        for place in range(column.data_page_offset, column.data_page_offset + column.total_compressed_size)
    ]
    draw = random.Random(0)
    damaged = [folders[1].with_name(f"damaged{number}") for number in range(40)]
    for folder in damaged:
        shutil.copytree(finished, folder / "work" / "cache")
        flip(folder / "work/cache/regions.parquet", draw.choice(places), draw.randrange(8))
        assert file_digest(folder / "work/cache/regions.parquet") not in (finished / "zarr.json").read_text()
    sound, *found = run(snippets(TABLES)[reader], folders[0], *damaged)
    assert sound == expected
    noticed = sum("error" in one for one in found)
    silent = sum("error" not in one and one != expected for one in found)
    print(f"{reader}: of {len(found)} flips {noticed} noticed, {silent} read as if nothing had happened")
    assert noticed
    assert (silent == 0) == (verdicts(TABLES)[reader] == "found")
