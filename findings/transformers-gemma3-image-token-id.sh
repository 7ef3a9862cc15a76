#!/usr/bin/env bash
# transformers 5.24.0: Gemma3Processor.image_token_id is not the id of the image tokens.
#
# It is the id of the one token before them (start of image). Whoever counts image tokens by it, masks them or looks for the
# last of them sees a picture of one token and takes its real tokens for text. The tokenizer's image_token_id and the
# configuration's are right; other families' processors (InternVL, Qwen-VL) hold the real one.
# Seen: image_token_id is <start_of_image>, once among the ids; the tokenizer's is there four times.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.24.0 torch==2.14.1 torchvision==0.29.1 pillow numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Gemma3ImageProcessor, Gemma3Processor, PreTrainedTokenizerFast

special = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
words = ["<unk>", "<pad>", "a", "cup", *special.values()]
spelling = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
spelling.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=spelling, unk_token="<unk>", pad_token="<pad>", extra_special_tokens=special
)
processor = Gemma3Processor(Gemma3ImageProcessor(size={"height": 28, "width": 28}), tokenizer, image_seq_length=4)
inputs = processor(text="<start_of_image> a cup", images=Image.new("RGB", (28, 28)), return_tensors="pt")
ids = inputs["input_ids"][0].tolist()

print("prompt:", [words[number] for number in ids])
print("processor.image_token_id is", words[processor.image_token_id])
print("tokens of that id:", ids.count(processor.image_token_id), "of the tokenizer's:", ids.count(tokenizer.image_token_id))
found = (words[processor.image_token_id], ids.count(processor.image_token_id), ids.count(tokenizer.image_token_id))
assert found == ("<start_of_image>", 1, 4), "the behaviour has changed"
P
