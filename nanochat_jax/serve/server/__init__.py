"""The HTTP server: the routes of the API, its guards, and the chat page."""
