"""Learns an object from photos and finds it again."""
