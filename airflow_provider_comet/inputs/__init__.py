"""What is sent: the schemas that an input must fit, and the files in it."""
