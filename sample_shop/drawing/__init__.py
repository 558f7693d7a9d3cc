"""Pictures of products in the manner of a shop's photographs."""
