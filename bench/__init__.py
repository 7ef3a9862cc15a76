"""Measurements. Most compare two ways to do the same work within one run, and give the ratio of the two as a figure."""
