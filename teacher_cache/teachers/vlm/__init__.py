"""Any vision-language model of transformers as a teacher: `teacher.py` shows the whole of it."""
