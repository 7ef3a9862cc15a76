"""Phase 1: every ground-truth box becomes one row of a sharded Zarr cache, embedded once by the teacher."""
