"""The few-shot stage: what each method makes of a benchmark, and the figures of the report."""
