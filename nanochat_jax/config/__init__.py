"""What programs can be told, and what a model is made of. Imports neither JAX nor anything slow."""
