"""The page in Chromium's WebAssembly beside Python on the same machine: speed, equality, first result and bytes.

Speeds are those of a random `yolov8n` at 640 px; pictures and names those of the demo's student, where ROOT/demo holds
one, else of the small student of `shapes`.
"""

import base64
import gzip
import io
import shutil
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bench.chromium import chromium, missing
from bench.figures import Figure
from bench.personal.random_student import make_student
from bench.personal.shapes import Found, detector, equal, picture, small_demo, teach, train
from bench.runs import in_a_process
from bench.timing import seconds
from mocha_pipe.data.benchmarks.opening import open_benchmark
from mocha_pipe.pipeline.settings.recipes import demo
from mocha_pipe.pipeline.settings.sections import RunConfig
from mocha_pipe.pipeline.web.serving import open_server
from mocha_pipe.pipeline.web.site import Site, build_site

if TYPE_CHECKING:
    from numpy.typing import NDArray

PICTURES, ROUNDS, OPENINGS = 50, 15, 5
MODEL, SIZE = "yolov8n.yaml", 640
_CONFIDENCE = 0.25

_BEGIN = """async (content) => {
  const { Student, readAbout } = await import("/student.js");
  const about = readAbout(await (await fetch("/student/student.onnx.json")).json());
  const student = new Student();
  const started = performance.now();
  const backend = await student.load("/student/student.onnx", about);
  const picture = new Blob([Uint8Array.fromBase64(content)], { type: "image/png" });
  const { frame } = await student.look(picture);
  const found = await student.detect(frame, { boxes: [], confidence: 0.25 });
  globalThis.held = { about, student, frame, picture, profile: (await import("/profile.js")).emptyProfile(about) };
  return { milliseconds: performance.now() - started, ...backend, boxes: found.detections.length };
}"""
_DETECT = """async () => {
  const started = performance.now();
  await held.student.detect(held.frame, { boxes: [], confidence: 0.25 });
  return performance.now() - started;
}"""
_ENROL = """async () => {
  const { learn } = await import("/learning.js");
  const started = performance.now();
  const lesson = { name: "my thing", box: [100, 100, 300, 300], coarse: 0, chosen: null };
  await learn(held.student, held.frame, held.profile, lesson, 0.25);
  return performance.now() - started;
}"""
_FIND = """async ([content, profile]) => {
  const { readProfile } = await import("/profile-file.js");
  const { compared, acceptAbove } = await import("/naming.js");
  const { readSafetensors } = await import("/safetensors.js");
  const { things } = await import("/results.js");
  const mine = readProfile(Uint8Array.fromBase64(profile).buffer, "profile");
  const file = await (await fetch("/student/strangers.safetensors")).arrayBuffer();
  const strangers = readSafetensors(file).tensors.closeness.values;
  const rows = compared(mine, mine.prototypes[0].vector.length);
  const thresholds = rows.compete.map((count) => acceptAbove(strangers, 0.05, count));
  const { frame } = await held.student.look(new Blob([Uint8Array.fromBase64(content)], { type: "image/png" }));
  const found = await held.student.detect(frame, { boxes: [], confidence: 0.25, compared: rows, thresholds });
  const named = things(found.detections, mine, strangers, []);
  return named.map(({ detection, name, kind }) => ({ box: detection.box, name, kind }));
}"""


def measure(
    root: Path, *, config: RunConfig | None = None, pictures: int = PICTURES, rounds: int = ROUNDS, model: str = MODEL
) -> dict[str, Figure]:
    """All five figures.

    Raises:
        RuntimeError: Playwright or Chromium is missing.
    """
    if lack := missing():
        raise RuntimeError(lack)
    folder = root / "bench-web"
    shutil.rmtree(folder, ignore_errors=True)
    in_a_process("random student", _make_random, folder / "random", model)
    site = build_site(folder / "random", None, _cache(), learner=None)
    return {**_speeds(site, rounds), **_bytes(site), **_equality(root, config, pictures, folder)}


def _speeds(site: Site, rounds: int) -> dict[str, Figure]:
    """In the browser and in Python by turns, so that what else the machine does meets both."""
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    content = _png(image)
    with chromium() as browser, _served(site) as address:
        page = _beside(browser, address)
        begun = page.evaluate(_BEGIN, content)
        native = _native(site["student/student.onnx"], image, begun["threads"])
        native()
        page.evaluate(_ENROL)
        taken = [(page.evaluate(_DETECT), 1000 * seconds(native), page.evaluate(_ENROL)) for _ in range(rounds)]
        openings = [_opening(browser, address, content) for _ in range(OPENINGS)]
    here, there, enrolled = (statistics.median(column) for column in zip(*taken, strict=True))
    first, own = (statistics.median(column) for column in zip(*openings, strict=True))
    threads = f"{begun['threads']} thread{'s' * (begun['threads'] > 1)} each"
    return {
        "web_detect_vs_native": Figure(
            value=statistics.median(one / other for one, other, _ in taken), target=2.0, better="lower",
            note=f"{here:.0f} / {there:.0f} ms: an image of {SIZE} px in Chromium's WebAssembly / in onnxruntime, "
            f"{threads}",
        ),
        "web_enrol_ms_vs_detect": Figure(
            value=statistics.median(one / other for other, _, one in taken), target=1.2, better="lower",
            note=f"{enrolled:.0f} / {here:.0f} ms: learning a drawn box / detecting, in the browser",
        ),
        "web_first_result_s": Figure(
            value=statistics.median(one / other for one, other in openings), target=1.5, better="lower",
            note=f"{first / 1000:.2f} / {own / 1000:.2f} s: from opening the page to the first boxes / the model's own "
            "load and first run, files in the browser's cache",
        ),
    }  # fmt: skip


def _opening(browser: Any, address: str, content: str) -> tuple[float, float]:
    """Milliseconds until the first boxes, and those of load and first run alone; files were read once before."""
    context = browser.new_context()
    page = context.new_page()
    for _ in range(2):
        page.goto(address)
        page.locator("#spoken", has_text="Found").wait_for(state="attached", timeout=120_000)
    first = page.evaluate("() => performance.getEntriesByName('first-boxes')[0].startTime")
    page.goto(f"{address}none")
    own = page.evaluate(_BEGIN, content)["milliseconds"]
    context.close()
    return first, own


def _bytes(site: Site) -> dict[str, Figure]:
    sizes = {name: len(gzip.compress(path.read_bytes(), 9)) for name, path in site.items()}
    own = sum(size for name, size in sizes.items() if "/" not in name)
    scenes = sum(size for name, size in sizes.items() if name.startswith("samples/"))
    return {
        "web_bytes": Figure(
            value=own / 1000, target=60, better="lower",
            note="KB: the page without model and runtime, each file by gzip; the scenes to try it on are "
            f"{scenes / 1000:.0f} more",
        )
    }  # fmt: skip


def _equality(root: Path, config: RunConfig | None, pictures: int, folder: Path) -> dict[str, Figure]:
    """The page beside `PersonalDetector` on pictures in six shapes."""
    made = demo(root / "demo").resolved()
    student, world = made.root / "distill" / "student", made.miniature_folder
    has_demo = config is None and student.is_dir()
    if not has_demo:
        config = config or small_demo(root / "bench-shapes")
        student, world = in_a_process("training", train, config), config.miniature_folder
    benchmark = open_benchmark(world / "benchmark")
    profile = folder / "profile.safetensors"
    taught = teach(student, benchmark, profile)
    shown = [index for index in range(len(benchmark.source.records)) if index not in taught][:pictures]
    paths = [picture(benchmark, image, number, folder) for number, image in enumerate(shown)]
    with chromium() as browser, _served(build_site(student, None, _cache(), learner=None)) as address:
        page = _beside(browser, address)
        page.evaluate(_BEGIN, base64.b64encode(paths[0].read_bytes()).decode())
        there = [_found(page, path, profile) for path in paths]
    here = detector(student, folder)
    pairs = list(zip(map(here, paths), there, strict=True))
    boxes = sum(len(found.names) for found, _ in pairs)
    named = sum(name != coarse for found, _ in pairs for name, coarse in found.names)
    return {
        "web_equal": Figure(
            value=sum(equal(*pair) for pair in pairs), target=float(pictures), better="higher",
            note=f"of {len(paths)} pictures: {boxes} boxes within half a pixel, their classes and {named} personal "
            f"names, by the page and by PersonalDetector; student: {'the demo' if has_demo else 'a small one'}",
        )
    }  # fmt: skip


def _found(page: Any, path: Path, profile: Path) -> Found:
    contents = [base64.b64encode(file.read_bytes()).decode() for file in (path, profile)]
    things = page.evaluate(_FIND, contents)
    xyxy = np.array([thing["box"] for thing in things], np.float64).reshape(-1, 4)
    return Found(xyxy, [(thing["name"], thing["kind"]) for thing in things])


def _make_random(folder: Path, model: str) -> None:
    make_student(folder, model, class_names=tuple(map(str, range(80))), width=512)


def _native(path: Path, image: "NDArray[np.uint8]", threads: int) -> Callable[[], object]:
    """One image through onnxruntime in Python, from what the network takes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options)
    width = next(each.shape[1] for each in session.get_inputs() if each.name == "prototypes")
    inputs = {
        "image": image.transpose(2, 0, 1)[None].astype(np.float32) / 255,
        "area": np.array([0, 0, SIZE, SIZE], np.float32),
        "prototypes": np.zeros((1, width), np.float32), "coarse": np.array([-1]), "objects": np.array([0]),
        "threshold": np.ones(1, np.float32), "confidence": np.array([_CONFIDENCE], np.float32),
        "regions": np.zeros((1, 4), np.float32),
    }  # fmt: skip
    return lambda: session.run(None, inputs)


def _png(image: "NDArray[np.uint8]") -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _cache() -> Path:
    from mocha_pipe.student.environment import own_folder

    return own_folder() / "web"


def _beside(browser: Any, address: str) -> Any:
    """An empty page of the same server, on which its modules can be asked."""
    page = browser.new_page()
    page.goto(f"{address}none")
    return page


@contextmanager
def _served(site: Site) -> Iterator[str]:
    server, address = open_server(site, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
