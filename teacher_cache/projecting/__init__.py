"""From the teacher's embeddings to the targets that training reads: exact PCA with whitening."""
