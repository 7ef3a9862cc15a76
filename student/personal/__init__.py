"""A user's objects: profile, detector and exported file."""
