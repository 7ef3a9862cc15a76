"""Is a cache right? Every byte and row (verify), and random rows against the live teacher (audit)."""
