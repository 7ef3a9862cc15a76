"""The 31 coarse classes that the paper distils on, in the order of their ids, and the Open Images classes in each."""

OPEN_IMAGES: dict[str, tuple[str, ...]] = {
    "bottle": ("Bottle", "Soap dispenser", "Personal care"),
    "fruit": ("Fruit",),
    "glasses": ("Glasses", "Sunglasses"),
    "mug": ("Mug", "Coffee cup"),
    "pen": ("Pen",),
    "snack": ("Snack",),
    "plug": ("Power plugs and sockets",),
    "phone": ("Mobile phone",),
    "scissors": ("Scissors",),
    "light": ("Light bulb",),
    "can": ("Tin can",),
    "ball": ("Football", "Cricket ball", "Volleyball (Ball)", "Golf ball", "Tennis ball", "Rugby ball"),
    "remote": ("Remote control",),
    "backpack": ("Backpack",),
    "toy": ("Teddy bear", "Toy", "Doll"),
    "house": ("House", "Tree house"),
    "cat": ("Cat",),
    "chair": ("Chair",),
    "clock": ("Alarm clock", "Clock", "Digital clock", "Wall clock", "Watch"),
    "shoe": ("Footwear", "Boot"),
    "teapot": ("Teapot",),
    "dog": ("Dog",),
    "decoration": ("Candle", "Vase", "Flowerpot", "Chime"),
    "table": ("Table", "Coffee table", "Kitchen & dining room table"),
    "book": ("Book", "Ring binder"),
    "glass": ("Wine glass", "Drink"),
    "bags": ("Luggage and bags",),
    "mouse": ("Computer mouse",),
    "glove": ("Glove",),
    "case": ("Pencil case",),
    "spray": ("Hair spray", "Cooking spray"),
}
"""Coarse class -> display names of the Open Images classes that are merged into it."""

COARSE_NAMES = tuple(OPEN_IMAGES)
"""Coarse classes by id; the published benchmarks name theirs among these."""
