"""What predictions make, as files: which there are, how they are fetched and stored."""
