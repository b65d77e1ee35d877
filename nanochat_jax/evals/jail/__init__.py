"""What runs inside the sandbox's own process. Plain Python: it starts without any package."""
