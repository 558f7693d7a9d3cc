"""Order only: the nightly pipeline, its halves, a flow a stage, the command line."""
