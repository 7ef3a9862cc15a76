"""The compact archive of a cache: the same numbers, or rounded ones, in fewer bytes, for transfer and storage."""
