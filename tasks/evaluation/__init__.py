"""How good recommendations are: protocols, slices, tests between models, and the tables that show it."""
