"""Json that is harmless in size and that no reader may stumble over; each must be one error of ours."""

DIGITS = 400 * "9"
JSON = {
    "nested lists": 100_000 * "[",
    "nested maps": 100_000 * '{"a":',
    "number": DIGITS,
    "number in a map": f'{{"shape": [{DIGITS}, 4], "rows": {DIGITS}, "stage": "distill", "format": {DIGITS}}}',
    "list": "[]",
    "text": f'"{300 * "x"}"',
    "nothing": "null",
    "no text": "\x00\x01",
}
