"""The personal detector beside what else one could use."""
