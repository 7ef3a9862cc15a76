"""Builds that are killed at random moments."""
