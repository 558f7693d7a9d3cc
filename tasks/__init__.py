"""One stage a file: what it reads, what it writes, its config, its pure core, its thin Prefect task."""
