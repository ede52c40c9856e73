"""Files that predictions make: how they are downloaded, named, written and described."""
