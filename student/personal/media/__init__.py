"""What a personal detector looks at, and what it draws: sources, the loader of files, drawings on disk."""
