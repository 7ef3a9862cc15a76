"""Streams of shards: every image once in an epoch whoever reads, an order that repeats, and faults told in one line."""

import io
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import numpy as np
import pytest
import torch
import yaml
from ultralytics.cfg import get_cfg
from ultralytics.utils.torch_utils import init_seeds

import mocha_pipe.data.packing.remote
import mocha_pipe.student.distil.stream.dataset
import mocha_pipe.student.distil.stream.loader
from mocha_pipe.data.boxes import xyxy_to_cxcywhn
from mocha_pipe.data.errors import DatasetError, DatasetNotFoundError
from mocha_pipe.data.packing.pack import pack
from mocha_pipe.data.packing.remote import RemoteShards, open_shards
from mocha_pipe.data.shards.tars import member_header, padding
from mocha_pipe.data.source import open_source
from mocha_pipe.data.types import DetectionSource
from mocha_pipe.student.distil.stream.dataset import StreamDataset, image_number, read_shard
from mocha_pipe.student.distil.stream.loader import StreamLoader
from mocha_pipe.student.errors import TrainArgumentError
from mocha_pipe.student.training.dataset import RegionDataset

WARPS = ("scale", "translate", "degrees", "shear", "perspective", "fliplr", "flipud")
MIXES = ("mosaic", "mixup", "cutmix", "copy_paste")
NO_AUGMENTATION = dict.fromkeys((*WARPS, *MIXES, "hsv_h", "hsv_s", "hsv_v"), 0.0)
IMAGES, SHARDS, SHARD_MB = 41, 11, 0.01


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, helpers: Any) -> Path:
    """Scenes whose colours tell their rows, as a data set in YOLO layout."""
    root = tmp_path_factory.mktemp("stream")
    source = helpers.make_source(root, images=IMAGES, split="train", seed=4)
    for record in source.records:
        lines = zip(record.class_ids, xyxy_to_cxcywhn(record.xyxy, record.width, record.height), strict=True)
        text = "".join(f"{class_id} {' '.join(map(repr, box.tolist()))}\n" for class_id, box in lines)
        Path(record.path).with_suffix(".txt").write_text(text)
    (root / "data.yaml").write_text(
        yaml.safe_dump({"train": "train", "val": "train", "names": list(source.class_names)})
    )
    return root / "data.yaml"


@pytest.fixture(scope="module")
def there(folder: Path) -> Path:
    (train,) = pack(folder, folder.parent / "there", splits=["train"], shard_mb=SHARD_MB)
    assert train.shards == SHARDS
    return folder.parent / "there"


@pytest.fixture
def remote(there: Path, tmp_path: Path) -> RemoteShards:
    return open_shards(f"file://{there}/dataset.json", tmp_path / "copy", "train")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mocha_pipe.data.packing.remote, "_FIRST_WAIT", 0.0)


@pytest.fixture
def old_server() -> Iterator[None]:
    """Workers come from a server process, as from Python 3.14 on, that started before anything else of the test."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("forkserver", force=True)
    multiprocessing.forkserver.ensure_running()
    yield
    multiprocessing.set_start_method(before, force=True)


def options(source: DetectionSource, **arguments: Any) -> dict[str, Any]:
    augmentations = {name: arguments.pop(name) for name in list(arguments) if name in NO_AUGMENTATION}
    names = dict(enumerate(source.class_names))
    base = {"imgsz": 64, "batch_size": 4, "augment": True, "task": "detect"}
    hyp = get_cfg(overrides=NO_AUGMENTATION | augmentations)
    return {**base, "hyp": hyp, "data": {"names": names, "nc": len(names), "channels": 3}, **arguments}


def stream_dataset(remote: RemoteShards, **arguments: Any) -> StreamDataset:
    arguments = {"first_row": remote.table.first_row, **arguments}
    return StreamDataset(remote.source, **options(remote.source, **arguments))


def stream_loader(remote: RemoteShards, workers: int = 0, **arguments: Any) -> StreamLoader:
    own = {"window": arguments.pop("window", 1000), "seed": arguments.pop("seed", 0)}
    return StreamLoader(stream_dataset(remote, **arguments), remote.shards, batch_size=4, workers=workers, **own)


def images_of(batches: Any) -> list[int]:
    return [image_number(file) for batch in batches for file in batch["im_file"]]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_comes_once_in_an_epoch(remote: RemoteShards, workers: int) -> None:
    loader = stream_loader(remote, workers)
    assert loader.num_workers == workers
    for epoch in (0, 5):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert sorted(images_of(batches)) == list(range(IMAGES))
        assert len(batches) == len(loader)


def test_workers_see_disjoint_shards(remote: RemoteShards) -> None:
    loader = stream_loader(remote, 2)
    batches = [images_of([batch]) for batch in loader]
    firsts = [shard.first_image for shard in remote.shards]
    order = loader.stream.order()
    for worker in range(2):  # they take turns until one has no more
        shards = {int(shard) for shard in np.searchsorted(firsts, batches[worker], side="right") - 1}
        assert shards <= set(order[worker::2])


def test_workers_are_no_more_than_shards(remote: RemoteShards) -> None:
    assert stream_loader(remote, 64).num_workers == SHARDS


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_depends_on_seed_and_number_alone(remote: RemoteShards, workers: int) -> None:
    def epoch(number: int, before: int | None = None, **arguments: Any) -> tuple[list[int], list[torch.Tensor]]:
        loader = stream_loader(remote, workers, mosaic=1.0, mixup=0.5, fliplr=0.5, scale=0.5, **arguments)
        if before is not None:
            loader.set_epoch(before)
            list(loader)
        init_seeds(5)
        loader.set_epoch(number)
        batches = list(loader)
        return images_of(batches), [batch["img"] for batch in batches]

    (images, pixels), (same, same_pixels) = epoch(3), epoch(3, before=2)
    assert images == same
    assert all(torch.equal(one, other) for one, other in zip(pixels, same_pixels, strict=True))
    assert images != epoch(4)[0]
    assert images != epoch(3, seed=1)[0]
    if workers:
        assert not torch.equal(pixels[0][0], pixels[0][1])


def test_workers_draw_anew_in_each_epoch(remote: RemoteShards, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    class Noted(torch.utils.data.DataLoader):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            drawn.append(named["generator"].initial_seed())
            super().__init__(*arguments, **named)

    monkeypatch.setattr(mocha_pipe.student.distil.stream.loader, "DataLoader", Noted)
    for epoch, seed in ((0, 0), (1, 0), (0, 1), (0, 0)):
        loader = stream_loader(remote, seed=seed)
        loader.set_epoch(epoch)
        next(iter(loader))
    assert len(set(drawn[:3])) == 3
    assert drawn[3] == drawn[0]


def test_the_window_mixes_shards(remote: RemoteShards) -> None:
    def neighbours_of_one_shard(window: int) -> float:
        loader = stream_loader(remote, window=window)
        firsts = [shard.first_image for shard in remote.shards]
        shards = np.searchsorted(firsts, images_of(loader), side="right")
        return float((np.diff(shards) == 0).mean())

    assert neighbours_of_one_shard(1) > 0.7
    assert neighbours_of_one_shard(1000) < 0.35


def test_without_augmentation_samples_are_those_of_the_folder(folder: Path, remote: RemoteShards) -> None:
    source = open_source(folder)
    local = RegionDataset(source, first_row=remote.table.first_row, **options(source, augment=False))
    streamed = StreamLoader(
        stream_dataset(remote, augment=False), remote.shards, batch_size=1, workers=0, window=9, seed=0
    )
    for batch in streamed:
        (image,) = images_of([batch])
        expected = local[image]
        assert torch.equal(batch["img"][0], expected["img"])
        assert torch.equal(batch["bboxes"], expected["bboxes"])
        assert torch.equal(batch["cls"], expected["cls"])


def read_back(loader: StreamLoader, decode: Any) -> list[tuple[int, int, set[int]]]:
    """Row, class id and rows seen in the pixels, for every box of an epoch under one seed."""
    init_seeds(3)
    found = []
    for batch in loader:
        for row, class_id, box, image in zip(
            batch["rows"], batch["cls"], batch["bboxes"], batch["batch_idx"], strict=True
        ):
            pixels = batch["img"][int(image)].numpy().transpose(1, 2, 0)
            cx, cy, w, h = (box * 64).tolist()
            left, right, top, bottom = (
                max(0, int(x)) for x in (cx - w / 2, cx + w / 2 + 1, cy - h / 2, cy + h / 2 + 1)
            )
            seen = set(np.unique(decode(pixels[top:bottom, left:right])).tolist())
            found.append((int(row), int(class_id), seen))
    return found


@pytest.mark.parametrize(
    "augmentations",
    [{}, {"mosaic": 1.0}, {"cutmix": 1.0}, {"degrees": 20, "fliplr": 0.5, "mosaic": 0.5}],
    ids=str,
)
def test_rows_are_read_back_from_the_pixels(
    remote: RemoteShards, helpers: Any, make_targets: Any, augmentations: dict[str, float]
) -> None:
    found = read_back(
        stream_loader(remote, targets=make_targets(remote.source), **augmentations), helpers.row_of_colour
    )
    classes = np.concatenate([record.class_ids for record in remote.source.records])
    assert len(found) > 40
    assert sum(row in seen for row, _, seen in found) / len(found) > 0.97
    assert all(classes[row] == class_id for row, class_id, _ in found)


def test_mixup_keeps_the_rows_of_both_images(
    remote: RemoteShards, helpers: Any, make_targets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At ratio 1 the pixels are the first image's, at ratio 0 the second's; the boxes are those of both."""
    passes = []
    for ratio in (0.0, 1.0):
        monkeypatch.setattr("numpy.random.beta", lambda *_, value=ratio: value)
        loader = stream_loader(remote, targets=make_targets(remote.source), mixup=1.0, mosaic=0.5)
        passes.append(read_back(loader, helpers.row_of_colour))
    assert [box[:2] for box in passes[0]] == [box[:2] for box in passes[1]]
    shown = [row in seen or row in other[2] for (row, _, seen), other in zip(*passes, strict=True)]
    assert sum(shown) / len(shown) > 0.97


def test_targets_are_those_of_the_rows(remote: RemoteShards, make_targets: Any) -> None:
    targets = make_targets(remote.source)
    for batch in stream_loader(remote, targets=targets, mosaic=1.0, workers=1):
        assert torch.equal(batch["targets"], torch.from_numpy(targets.values)[batch["rows"]])


def test_partners_are_images_that_came_before(remote: RemoteShards) -> None:
    """No image is read ahead of its turn: what a mosaic shows has come already."""
    loader = stream_loader(remote, mosaic=1.0, mixup=1.0)
    random.seed(0)
    first_row = remote.table.first_row
    come: set[int] = set()
    shown = set()
    for sample in loader.stream:
        come.add(image_number(sample["im_file"]))
        images = set((np.searchsorted(first_row, sample["rows"].numpy(), side="right") - 1).tolist())
        assert images <= come
        shown.add(len(images))
    assert max(shown) > 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_by_shard(remote: RemoteShards, workers: int) -> None:
    loader = stream_loader(remote, workers, window=3)
    loader.set_epoch(2)
    assert loader.done == ()
    batches = iter(loader)
    taken = [next(batches) for _ in range(6)]
    assert len(loader.done) < SHARDS
    taken.append(next(batches))
    finished = loader.done
    assert 0 < len(finished) < SHARDS
    trained = set(images_of(taken[:-1]))  # the last one is with the trainer still
    done = {
        image
        for number in finished
        for image in range(
            remote.shards[number].first_image, remote.shards[number].first_image + len(remote.shards[number].digests)
        )
    }
    assert done <= trained
    again = stream_loader(remote, workers, window=3)
    again.set_epoch(2, finished)
    rest = list(again)
    assert sorted(images_of(rest)) == sorted(set(range(IMAGES)) - done)
    assert len(rest) == len(again)
    assert again.done == tuple(range(SHARDS))
    again.set_epoch(3)
    assert sorted(images_of(again)) == list(range(IMAGES))


def test_fraction_and_classes_are_those_of_the_first_images(remote: RemoteShards) -> None:
    loader = stream_loader(remote, fraction=7)
    assert sorted(images_of(loader)) == list(range(7))
    loader = stream_loader(remote, classes=[1])
    classes = np.concatenate([record.class_ids for record in remote.source.records])
    rows = np.concatenate([label["rows"] for label in loader.dataset.labels]).ravel()
    assert rows.tolist() == np.flatnonzero(classes == 1).tolist()


def test_what_needs_all_images_at_once_is_refused(remote: RemoteShards) -> None:
    for name, value in (("rect", True), ("cache", "ram")):
        with pytest.raises(TrainArgumentError) as caught:
            stream_dataset(remote, **{name: value})
        assert str(caught.value) == (
            f"Training argument {name}={value} needs all images at once, which a stream has not; leave it out, or "
            "train from local shards."
        )


def test_an_image_that_cannot_be_decoded_is_left_out_where_it_was_set_aside(
    folder: Path, tmp_path: Path, make_targets: Any
) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (root / "data.yaml").write_text((folder.parent / "data.yaml").read_text())
    (root / "train").mkdir()
    for file in (folder.parent / "train").iterdir():
        (root / "train" / file.name).write_bytes(file.read_bytes())
    broken = root / "train/004.png"
    broken.write_bytes(broken.read_bytes()[:100])
    pack(root / "data.yaml", tmp_path / "there", splits=["train"])
    remote = open_shards(f"file://{tmp_path}/there/dataset.json", tmp_path / "copy", "train")
    targets = make_targets(remote.source)
    targets.set_aside = np.arange(*remote.table.first_row[4:6])
    loader = stream_loader(remote, targets=targets)
    assert sorted(images_of(loader)) == [image for image in range(IMAGES) if image != 4]


def damaged(remote: RemoteShards, content: bytes, tmp_path: Path) -> Any:
    """The second shard, with other bytes."""
    path = tmp_path / "damaged.tar"
    path.write_bytes(content)
    shard = remote.shards[1]
    return type(shard)(url=f"file://{path}", bytes=len(content), first_image=shard.first_image, digests=shard.digests)


def bytes_of(shard: Any) -> bytes:
    return Path(shard.url.removeprefix("file://")).read_bytes()


def test_shards_that_are_not_what_was_packed(remote: RemoteShards, tmp_path: Path) -> None:
    content = bytes_of(remote.shards[1])
    short = damaged(remote, content, tmp_path)
    os.truncate(tmp_path / "damaged.tar", 1000)
    with pytest.raises(DatasetError) as caught:
        list(read_shard(short))
    assert str(caught.value) == (
        f"{short.url}: has 1000 bytes where dataset.json says {len(content)}, it was cut short; upload it again"
    )
    flipped = bytearray(content)
    flipped[600] ^= 1
    name = f"{remote.shards[1].first_image:09d}.png"
    with pytest.raises(DatasetError) as caught:
        list(read_shard(damaged(remote, bytes(flipped), tmp_path)))
    assert str(caught.value) == (
        f"file://{tmp_path}/damaged.tar: {name} is not the image that was packed; upload the shard again"
    )
    with pytest.raises(DatasetError) as caught:
        list(read_shard(damaged(remote, bytes_of(remote.shards[2]), tmp_path)))
    assert str(caught.value) == (
        f"file://{tmp_path}/damaged.tar: holds {remote.shards[2].first_image:09d}.png where dataset.json has no such "
        "image; upload shards and index again"
    )


@pytest.mark.parametrize(("cut", "reason"), [(700, "unexpected end of data"), (2048, "it ends after 1 of")])
def test_a_stream_that_ends_early_without_a_size(
    remote: RemoteShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int, reason: str
) -> None:
    content = bytes_of(remote.shards[1])[:cut]
    monkeypatch.setattr(mocha_pipe.student.distil.stream.dataset, "open_stream", lambda url: io.BytesIO(content))
    with pytest.raises(DatasetNotFoundError, match="cannot be read") as caught:
        list(read_shard(remote.shards[1]))
    assert reason in str(caught.value)


def test_a_connection_that_breaks_goes_on_where_it_was(remote: RemoteShards, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = remote.shards[1]
    expected, content = list(read_shard(shard)), bytes_of(shard)
    breaks = iter([3000, 700, len(content)])

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() + max(size or 0, 0) > self.until:
                raise ConnectionResetError("reset by peer")
            return super().read(size)

    def open_broken(url: str) -> BinaryIO:
        stream = Broken(content)
        stream.until = next(breaks) + tarfile.RECORDSIZE
        return stream

    monkeypatch.setattr(mocha_pipe.student.distil.stream.dataset, "open_stream", open_broken)
    assert list(read_shard(shard)) == expected


class _Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("suffix", ["pyd", "pickle", "pkl", "pth", "npy"])
def test_nothing_is_unpickled_and_nothing_is_written(remote: RemoteShards, tmp_path: Path, suffix: str) -> None:
    bomb = pickle.dumps(_Bomb(str(tmp_path / "exploded")))
    name = f"{remote.shards[1].first_image:09d}.{suffix}"
    content = member_header(name, len(bomb)) + bomb + padding(len(bomb)) + bytes_of(remote.shards[1])
    with pytest.raises(DatasetError, match="is not the image that was packed"):
        list(read_shard(damaged(remote, content, tmp_path)))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_worker_s_error_is_one_line(remote: RemoteShards, tmp_path: Path, workers: int) -> None:
    loader = stream_loader(remote, workers)
    loader.stream.shards = [damaged(remote, b"none", tmp_path) if n == 1 else s for n, s in enumerate(remote.shards)]
    with pytest.raises((DatasetError, DatasetNotFoundError)) as caught:
        list(loader)
    assert str(caught.value).startswith(f"file://{tmp_path}/damaged.tar: ")
    assert "\n" not in str(caught.value)


def test_the_loader_is_what_the_trainer_expects(remote: RemoteShards) -> None:
    loader = stream_loader(remote)
    assert (len(loader.sampler), len(loader.dataset), loader.batch_size, loader.drop_last) == (IMAGES, IMAGES, 4, False)
    loader.reset()


ALL_AUGMENTATIONS = {"mosaic": 0.7, "mixup": 0.5, "fliplr": 0.5, "scale": 0.5, "hsv_h": 0.1, "degrees": 10}


@pytest.mark.parametrize("cache", [None, "ram"])
def test_local_shards_give_the_very_samples_of_the_folder(folder: Path, there: Path, cache: str | None) -> None:
    def samples(data: Path) -> list[dict[str, Any]]:
        source = open_source(data)
        first_row = np.cumsum([0, *(len(record.class_ids) for record in source.records)])
        dataset = RegionDataset(source, first_row=first_row, **options(source, cache=cache, **ALL_AUGMENTATIONS))
        init_seeds(9)
        return [dataset[index] for index in range(len(dataset))]

    for one, other in zip(samples(folder), samples(there / "dataset.json"), strict=True):
        for key in ("img", "bboxes", "cls", "rows"):
            assert torch.equal(one[key], other[key])


def test_local_shards_have_no_place_for_a_cache_on_the_disk(there: Path) -> None:
    source = open_source(there / "dataset.json")
    with pytest.raises(TrainArgumentError) as caught:
        RegionDataset(source, **options(source, cache="disk"))
    assert str(caught.value) == (
        "Training argument cache=disk keeps images that are files of their own, and images in shards are none; use "
        "cache=ram, or leave it out."
    )


def test_local_shards_travel_to_loader_workers(there: Path) -> None:
    """A forked worker has the data set, a spawned one unpickles it."""
    source = open_source(there / "dataset.json")
    dataset = RegionDataset(source, **options(source, augment=False))
    expected = torch.stack([dataset[index]["img"] for index in range(IMAGES)])
    loader = torch.utils.data.DataLoader(dataset, IMAGES, num_workers=1, collate_fn=dataset.collate_fn)
    assert torch.equal(next(iter(loader))["img"], expected)
    unpickled = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(torch.stack([unpickled[index]["img"] for index in range(IMAGES)]), expected)


def uploaded(there: Path, bucket: str, tmp_path: Path) -> RemoteShards:
    import boto3

    for path in there.iterdir():
        boto3.client("s3").upload_file(str(path), "team", f"scenes/{path.name}")
    return open_shards(f"{bucket}/scenes/train-{{000000..000010}}.tar", tmp_path / "copy", "train")


def test_an_epoch_from_a_bucket(there: Path, bucket: str, tmp_path: Path) -> None:
    import boto3

    remote = uploaded(there, bucket, tmp_path)
    loader = stream_loader(remote, 2, mosaic=1.0)
    assert sorted(images_of(loader)) == list(range(IMAGES))
    boto3.client("s3").delete_object(Bucket="team", Key="scenes/train-000004.tar")
    with pytest.raises(
        DatasetNotFoundError, match=r"s3://team/scenes/train-000004.tar: there is no such file"
    ) as caught:
        list(loader)
    assert "\n" not in str(caught.value)


def test_workers_read_a_bucket_with_what_this_process_was_given(
    there: Path, old_server: None, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The credentials stand in the environment, the server's address in fsspec's configuration."""
    remote = uploaded(there, bucket, tmp_path)
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # where nobody listens
    assert sorted(images_of(stream_loader(remote, 1))) == list(range(IMAGES))
