"""Teachers: frozen vision-language models that embed regions. The only package that imports transformers."""
