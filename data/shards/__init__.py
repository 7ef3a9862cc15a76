"""How a data set lies in tar files: names, index and records. Nothing here opens a data set."""
