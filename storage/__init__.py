"""The stores: tables and their schemas, references, digests, pictures, the vector index."""
