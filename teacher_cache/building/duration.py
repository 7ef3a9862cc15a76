"""Times in words; apart from the forecast so that a table needs no torch."""


def duration(seconds: float) -> str:
    """A time in words: `4.2 s`, `3 min 20 s`, `14 h 05 min`."""
    if seconds < 59.95:  # what rounds to 60.0 is a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
