"""What is sent to create a prediction: the input's schema, the files in it, and the checks before anything is paid."""
