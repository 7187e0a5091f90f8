"""What a result holds, how it is written and read, and what it follows from."""
