"""Teachers: frozen models that embed regions, with or without a language model. Nothing else imports transformers."""
