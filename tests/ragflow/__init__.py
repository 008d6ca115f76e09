"""RAGFlow's interface and the import of its data."""
