"""Teachers: frozen models that embed regions, LLaVA or an image encoder. The only package that imports transformers."""
