"""The commands, a module for each subject. Each is thin: it calls the library, and shows."""
