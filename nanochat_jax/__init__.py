"""From raw text to a chat assistant of your own, in JAX and Flax."""
