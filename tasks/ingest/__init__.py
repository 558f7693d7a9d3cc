"""Ingest: catalog and interaction files in, items, interactions and rejects out."""
