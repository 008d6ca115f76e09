"""What asyncsvc is compared with: each module is one other way to do the same work."""
