"""The settings of every program and of a model. Imports neither JAX nor anything slow."""
