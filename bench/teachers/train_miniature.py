"""Train the miniature teacher again: a real LLaVA of about 1.3 million parameters that describes the miniature world.

    python -m bench.teachers.train_miniature OUT_FOLDER

It sees only objects of the world's training split, in scenes of its own. Everything is seeded.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import trange
from transformers import LlavaProcessor

from bench.teachers.miniature_model import IMAGE_SIZE, PATCH_SIZE, build_model, build_processor
from mocha_pipe.data.miniature.objects import SHAPES, PersonalObject, random_object
from mocha_pipe.data.miniature.scenes import render_scene
from mocha_pipe.teacher_cache.crops import cut_crop
from mocha_pipe.teacher_cache.teachers.config import DEFAULT_PROMPT


def sample_crops(scenes: int, seed: int) -> tuple[list[NDArray[np.uint8]], list[PersonalObject]]:
    """Crops of training objects with boxes that are a few pixels off, as a detector's are; each (64, 64, 3)."""
    crops, things = [], []
    for index in trange(scenes, desc="scenes"):
        rng = np.random.default_rng([seed, index])
        shapes = rng.choice(SHAPES, size=rng.integers(2, 5))
        scene = render_scene(rng, [random_object(rng, str(shape), "train") for shape in shapes])
        for box, thing in zip(scene.xyxy, scene.objects, strict=True):
            side = np.tile(box[2:] - box[:2], 2)
            crops.append(cut_crop(scene.image, box + rng.normal(0, 0.03, 4) * side, margin=0.0, size=IMAGE_SIZE))
            things.append(thing)
    return crops, things


def encode_dialogues(
    processor: LlavaProcessor, things: list[PersonalObject]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and labels (-100 outside the answer), each (n, L), left-padded as at inference."""
    prompts, answers = [], []
    for thing in things:
        text = DEFAULT_PROMPT.format(label=thing.shape)
        turn: Any = [{"role": "user", "content": [{"type": "text", "text": text}, {"type": "image"}]}]
        prompts.append(processor.apply_chat_template(turn, add_generation_prompt=True))
        answers.append(processor.tokenizer(thing.caption, add_special_tokens=False).input_ids)
    image_tokens = (IMAGE_SIZE // PATCH_SIZE) ** 2
    ids = []
    for prompt in prompts:
        ids.append(processor.tokenizer(prompt.replace("<image>", "<image>" * image_tokens)).input_ids)
    length = max(len(a) + len(b) for a, b in zip(ids, answers, strict=True)) + 1
    pad, eos = processor.tokenizer.pad_token_id, processor.tokenizer.eos_token_id
    inputs = torch.full((len(things), length), pad)
    labels = torch.full((len(things), length), -100)
    for row, (prompt_ids, answer) in enumerate(zip(ids, answers, strict=True)):
        whole = torch.tensor([*prompt_ids, *answer, eos])
        inputs[row, -len(whole) :] = whole
        labels[row, -len(answer) - 1 :] = whole[-len(answer) - 1 :]
    return inputs, (inputs != pad).long(), labels


def train(out: Path, *, steps: int, batch: int, scenes: int, seed: int) -> None:
    """Train from random weights and write the folder in Hugging Face layout."""
    torch.manual_seed(seed)
    processor = build_processor()
    model = build_model(processor)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(processor.tokenizer)} tokens")
    crops, things = sample_crops(scenes, seed)
    images = np.stack(crops)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.5e-3, total_steps=steps, pct_start=0.1)
    rng = np.random.default_rng([seed, scenes])
    bar = trange(steps, desc="training")
    for step in bar:
        picks = rng.integers(len(things), size=batch)
        ids, mask, labels = encode_dialogues(processor, [things[pick] for pick in picks])
        pixels = processor.image_processor(list(images[picks]), return_tensors="pt").pixel_values
        output = model(input_ids=ids, attention_mask=mask, pixel_values=pixels, labels=labels)
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            predicted, wanted = output.logits[:, :-1].argmax(-1), labels[:, 1:]
            accuracy = (predicted == wanted)[wanted != -100].float().mean()
            bar.set_postfix(loss=f"{output.loss.item():.3f}", token_accuracy=f"{accuracy.item():.3f}")
    assert math.isfinite(output.loss.item()), "training diverged"
    model_any: Any = model  # transformers leaves half() untyped
    model_any.half().save_pretrained(out)
    processor.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--scenes", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train(arguments.out, steps=arguments.steps, batch=arguments.batch, scenes=arguments.scenes, seed=arguments.seed)


if __name__ == "__main__":
    main()
